"""Paths of the parts of a configuration, put in front of what goes wrong in a part.

A component knows its own parameters and nothing of the configuration that it is built from: it says
`beta_fast=0.5 must be larger than beta_slow=1`. The builder knows the path of the node, and makes of it
`rope.inner.beta_fast=0.5 must be larger than beta_slow=1`. Other parameters in the message stay relative to the node.
"""

from __future__ import annotations

import inspect
import re
import weakref
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any

from aptlab.config.shortcuts import write_typed_key
from aptlab.errors import AptlabError

SLOT = re.compile(r"\$\{([A-Za-z_][\w.]*)\}")  # `${rope}`, and no resolver such as `${oc.env:HOME}`
OPENING = re.compile(r"([A-Za-z_]\w*)[\w.]*(?=[=: ])")  # what a message opens with: `gate.bound=2 must be …`
WAY_OUT = re.compile(r"(?:(?<=\bset )|(?<=\btry )|(?<=\bas in ))[A-Za-z_]\w*(?==)")  # the key in `set on_bad=skip`
SLOTS = 8  # longest chain of slots that is followed


@dataclass(frozen=True)
class NodePath:
    """Where a node stands in a configuration.

    path      dotted, "" for a node on its own
    tree      the whole configuration with interpolations as written, None where it is not known
    supplied  parameters that code hands to the component, so that no key sets them
    """

    path: str = ""
    tree: Any = field(default=None, repr=False)
    supplied: frozenset[str] = frozenset()

    def child(self, key: str | int) -> NodePath:
        """The path of a value inside this node."""
        return NodePath(join_keys(self.path, str(key)), self.tree)

    def supply(self, names: Iterable[str]) -> NodePath:
        """The same path, for a component that code also hands these parameters."""
        return replace(self, supplied=self.supplied | frozenset(names))

    def find_key(self, name: str = "") -> str:
        """The key that a user sets: slots are followed, so `task.net.rope.factor` is `rope.factor`.

        What a shortcut sets has the name of the shortcut: `source.files` is `data.files`.
        """
        key = follow_slots(self.tree, join_keys(self.path, name))
        node = self.tree
        for parent in key.split(".")[:-1]:
            node = get_child(node, parent)
        return write_typed_key(key, get_child(node, "_target_"))

    def opens_message(self, text: str, parameters: Collection[str]) -> bool:
        """Whether a message begins with a parameter that a key of this node sets."""
        opening = OPENING.match(text)
        return opening is not None and opening[1] in parameters and opening[1] not in self.supplied

    def complete_ways_out(self, text: str, parameters: Collection[str]) -> str:
        """The message with whole keys where it says what to type: `set on_bad=skip` is `set source.on_bad=skip`."""

        def complete(found: re.Match[str]) -> str:
            known = found[0] in parameters and found[0] not in self.supplied
            return self.find_key(found[0]) if known else found[0]

        return WAY_OUT.sub(complete, text)


def join_keys(*keys: str) -> str:
    """A dotted path of the keys that are not empty."""
    return ".".join(key for key in keys if key)


def follow_slots(tree: Any, path: str) -> str:
    """The path at which a value is written, when the given one leads through slots such as `rope: ${rope}`."""
    keys = path.split(".")
    for _ in range(SLOTS if tree is not None else 0):
        node = tree
        for depth, key in enumerate(keys, start=1):
            node = get_child(node, key)
            if isinstance(node, str) and (slot := SLOT.fullmatch(node)):
                keys = [*slot[1].split("."), *keys[depth:]]
                break
        else:
            break
    return ".".join(keys)


def get_child(node: Any, key: str) -> Any:
    """The value at one key of a plain dict or list, None where there is none."""
    if isinstance(node, list):
        return node[int(key)] if key.isdigit() and int(key) < len(node) else None
    return node.get(key) if isinstance(node, Mapping) else None


def add_path(error: AptlabError, node: NodePath, parameters: Collection[str]) -> AptlabError:
    """The error with the path of its component in front; one that has a path stays as it is."""
    if error.located:
        return error
    text = node.complete_ways_out(str(error), parameters)
    opening = OPENING.match(text)
    if opening is not None and node.opens_message(text, parameters):
        text = node.find_key(opening[0]) + text[opening.end() :]
    elif key := node.find_key():
        text = f"{key}: {text}"
    found = type(error)(text)
    found.__dict__.update(error.__dict__, located=True)  # an error may carry more, as Stopped its exit code
    return found


def read_parameters(target: Any) -> tuple[str, ...]:
    """Names that a class takes; none where it does not say."""
    try:
        return tuple(inspect.signature(target).parameters)
    except (TypeError, ValueError):
        return ()


# Components that were built and still live, by identity: a traceback says which of them raised, and this says where
# it stands in the configuration.
_BUILT: dict[int, tuple[weakref.ref[Any], NodePath]] = {}


def remember_path(component: Any, node: NodePath) -> None:
    """Keep the path of a component as long as it lives; what takes no weak reference is left out."""
    number = id(component)
    try:
        reference = weakref.ref(component, lambda _: _BUILT.pop(number, None))
    except TypeError:  # a number, or a class with __slots__
        return
    _BUILT[number] = (reference, node)


def locate_error(error: AptlabError) -> AptlabError:
    """The error of a component that was built earlier, with its path in front.

    Only a message that opens with one of the component's own parameters, or says which of them to set, gets a path:
    `files=x matches no file`, from a source that was built from `source`, becomes `data.files=x matches no file`.
    All others stay.
    """
    text = str(error)
    for component, node in find_raising_components(error.__traceback__):
        parameters = read_parameters(type(component))
        if node.opens_message(text, parameters) or node.complete_ways_out(text, parameters) != text:
            return add_path(error, node, parameters)
    return error


def find_raising_components(trace: TracebackType | None) -> Iterator[tuple[Any, NodePath]]:
    """Built components whose methods ran when an error was raised, the innermost first."""
    frames = []
    while trace is not None:
        frames.append(trace.tb_frame)
        trace = trace.tb_next
    for frame in reversed(frames):
        component = frame.f_locals.get("self")
        if (node := find_node_path(component)) is not None:
            yield component, node


def find_node_path(component: Any) -> NodePath | None:
    """Where a component that was built and still lives stands in its configuration."""
    reference, node = _BUILT.get(id(component), (None, None))
    return node if reference is not None and reference() is component else None
