"""The one door from a configuration to objects.

It reads the keys that Hydra's `instantiate` reads (`_target_ _args_ _partial_ _recursive_`; `_convert_` is always
"all") and differs in two things: a target is imported only when it is trusted, and every error, also one of a factory
that a parent calls much later, opens with the path of its node.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aptlab.config.bases import read_group_bases
from aptlab.config.composing import read_plain_tree, resolve_to_plain
from aptlab.config.escaped import refuse_interpolations, unescape_values
from aptlab.config.log_keys import complete_logged_keys
from aptlab.config.node_path import (
    NodePath,
    add_path,
    find_raising_components,
    follow_slots,
    read_parameters,
    remember_path,
)
from aptlab.config.slots import MACHINE, RESERVED, Slot, find_slot, walk_slots
from aptlab.config.trust import import_placed_target, import_target, list_trusted_prefixes
from aptlab.errors import AptlabError, ConfigError

complete_logged_keys()


def build(node: Any, path: str = "", /, **kwargs: Any) -> Any:
    """Make the object that `node` (a DictConfig or a plain dict with a `_target_`) describes.

    `path` is that of a plain node; a DictConfig knows its own. It says which kind of component belongs there: a node
    without a path may be of any kind of group. `kwargs` are passed to the object as they are, uncopied. Every target in
    the node, at any depth, must belong in its place before the first one is made. A node with `_partial_: true` gives a
    factory.

    Errors: AptlabError of a component, with its path in front; ConfigError naming the path for every other error of
    a constructor, with the original as its cause.
    """
    plain, where = _read_node(node, path)
    prefixes = list_trusted_prefixes()
    for inner, slot in walk_slots(plain, _find_place(where)):
        if not isinstance(inner, Mapping):
            continue
        key = follow_slots(where.tree, slot.path) or "node"
        try:
            import_placed_target(inner["_target_"], slot, prefixes)
        except AptlabError as error:
            raise ConfigError(f"{key}: {error}") from None
        except ImportError as error:
            raise ConfigError(f"{key}: _target_ {inner['_target_']} cannot be imported: {error}") from error
    return build_plain(plain, where, kwargs)


def _find_place(where: NodePath) -> Slot:
    """The place of a node. ConfigError for a plain node, as files hold them, where a run acts on the machine."""
    bases, group = read_group_bases(), where.path.partition(".")[0]
    if where.tree is not None:
        return find_slot(where.tree, follow_slots(where.tree, where.path), bases)
    if group in MACHINE:
        raise ConfigError(f"{where.path}: says what a run does to this machine, and is built from no file; compose it")
    return Slot.at(where.path, bases)


def build_plain(value: Any, where: NodePath, kwargs: Mapping[str, Any] | None = None) -> Any:
    """The object of a plain node; of a dict or a list without a target the same with its inner nodes made."""
    if isinstance(value, list | tuple):
        return [build_plain(item, where.child(index)) for index, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    if "_target_" not in value:
        return {key: build_plain(item, where.child(key)) for key, item in value.items()}
    kwargs = kwargs or {}
    args = value.get("_args_") or []
    arguments = {key: item for key, item in value.items() if key not in RESERVED and key not in kwargs}
    if value.get("_recursive_", True):
        args = build_plain(args, where.child("_args_"))
        arguments = {key: build_plain(item, where.child(key)) for key, item in arguments.items()}
    target = import_target(value["_target_"], list_trusted_prefixes())
    node = NodeTarget(target, value["_target_"], where, frozenset(arguments))
    factory = functools.partial(make_component, node, *args, **arguments, **kwargs)
    return factory if value.get("_partial_") else factory()


@dataclass(frozen=True)
class NodeTarget:
    """The class that a node names, its name there, the path of the node, and the parameters that its keys set."""

    target: Any
    name: str
    where: NodePath
    keys: frozenset[str]

    def __repr__(self) -> str:
        return self.name


def make_component(node: NodeTarget, /, *args: Any, **kwargs: Any) -> Any:
    """Call the class of a node; what it raises opens with the path of the node, or of the part in it that raised."""
    names = read_parameters(node.target)
    where = node.where.supply({*names[: len(args)], *kwargs} - node.keys)
    try:
        component = node.target(*args, **kwargs)
    except AptlabError as error:
        if error.located:
            raise
        part, inner = next(find_raising_components(error.__traceback__), (node.target, where))
        parameters = names if part is node.target else read_parameters(type(part))
        raise add_path(error, inner, parameters) from error
    except Exception as error:
        text = str(error).strip().split("\n")[0]
        located = ConfigError(f"{where.find_key() or node.name}: {type(error).__name__}: {text}")
        located.located = True
        raise located from error
    remember_path(component, where)
    return component


def _read_node(node: Any, path: str) -> tuple[dict[str, Any], NodePath]:
    """The node as plain containers, and its path in the configuration it came from; a plain one is as files hold it."""
    from omegaconf import DictConfig

    if isinstance(node, DictConfig):
        tree = read_plain_tree(node._get_root())
        plain, where = resolve_to_plain(node), NodePath(str(node._get_full_key("") or ""), tree)
    else:
        refuse_interpolations(node, path)
        plain, where = unescape_values(node), NodePath(path)
    if not isinstance(plain, dict) or "_target_" not in plain:
        raise ConfigError(f"{where.path or 'node'}: there is no _target_, so nothing can be built from {_short(node)}")
    return plain, where


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:60] + "…"
