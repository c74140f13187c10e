"""Which component belongs where in a configuration: the kind of every place, and what is said of a class that is none.

A place is a group (conf/groups.yaml names its base class) or a parameter of the component above it, whose annotation
asks for a class, for a factory of one, or for a list or a mapping of them. All is read from source, so a check imports
nothing, and a class that does not belong is refused before it is imported.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from aptlab.config.bases import OURS, find_slot_base
from aptlab.config.listed import BROAD, LISTED
from aptlab.config.node_path import get_child, join_keys
from aptlab.config.static.classes import find_base_problem
from aptlab.config.static.kinds import (
    Member,
    asks_for_methods_alone,
    derives_from,
    list_item_members,
    list_kinds,
    read_members,
)
from aptlab.config.static.signatures import Parameter, read_signature
from aptlab.errors import ConfigError

RESERVED = ("_target_", "_partial_", "_convert_", "_recursive_", "_args_")
# Places that act on the machine: where a run goes, what it starts, where its numbers are sent. Built from what the user
# composed, and never from a node that was read from a file.
MACHINE = ("device", "launcher", "logger", "paths", "sweep", "trainer")


@dataclass(frozen=True)
class Slot:
    """A place of a configuration.

    path     of the place, "" for a node that stands nowhere
    bases    the table of groups and their base classes
    base     dotted name of the class that a group asks for, "" for none
    members  alternatives of a parameter's annotation; None where the place is no parameter
    owner    who asks, for messages: `every option of rope`, `head of aptlab.models.Decoder`
    known    False where the component above is refused itself, so that nothing can be said of its parts
    """

    path: str
    bases: Mapping[str, str] = field(repr=False)
    base: str = ""
    members: tuple[Member, ...] | None = None
    owner: str = ""
    known: bool = True

    @classmethod
    def at(cls, path: str, bases: Mapping[str, str]) -> Slot:
        """The place of a group, of a part of one such as `callbacks.guard`, or of what the table does not name."""
        base = find_slot_base(path, bases) or ""
        return cls(path, bases, base, owner=f"every option of {path.partition('.')[0]}" if base else "")

    @property
    def kinds(self) -> tuple[str, ...]:
        """Dotted names of the classes that belong here; none: no component does."""
        if self.base:
            return (self.base,)
        return list_kinds(self.members) if self.members is not None else list_free_kinds(self)

    def item(self, key: str | int) -> Slot:
        """The place of an item of a list or a mapping that stands here."""
        path = join_keys(self.path, str(key))
        if self.members is None:
            return replace(Slot.at(path, self.bases), known=self.known)
        return replace(self, path=path, members=list_item_members(self.members))

    def parameter(self, name: str, target: str, key: str = "") -> Slot:
        """The place of a parameter of the class that stands here; `key` is where it is written, if not by its name."""
        parameter = read_parameters(target).get(name)
        annotation = parameter.annotation if parameter else None
        members = read_members(annotation, parameter.module) if parameter and annotation else ()
        path, owner = join_keys(self.path, key or name), f"{name} of {target}"
        return Slot(path, self.bases, members=members, owner=owner, known=self.known)


def list_free_kinds(slot: Slot) -> tuple[str, ...]:
    """The kinds for a node that stands nowhere: those of all groups but the ones that act on the machine."""
    bases = [] if slot.path else [base for key, base in slot.bases.items() if key.partition(".")[0] not in MACHINE]
    return tuple(dict.fromkeys(bases))


def find_slot(tree: Any, path: str, bases: Mapping[str, str]) -> Slot:
    """The place at a path of a whole configuration, whose interpolations are as written; `path` is without slots."""
    slot, node = Slot.at(path.partition(".")[0], bases), tree
    for depth, key in enumerate(path.split(".")):
        target = node.get("_target_") if isinstance(node, Mapping) else None
        if depth:
            slot = slot.parameter(key, target) if isinstance(target, str) else slot.item(key)
        node = get_child(node, key)
    return slot


def walk_slots(value: Any, slot: Slot) -> Iterator[tuple[Any, Slot]]:
    """(node, its place) of every dict with a `_target_`, parents first, and of every value that is no plain one."""
    if isinstance(value, Mapping) and "_target_" in value:
        yield value, slot
        yield from _walk_parameters(value, slot)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from walk_slots(item, slot.item(key))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from walk_slots(item, slot.item(index))
    elif not isinstance(value, str | int | float | None):
        yield value, slot


def _walk_parameters(node: Mapping[str, Any], slot: Slot) -> Iterator[tuple[Any, Slot]]:
    target = node["_target_"]
    known = isinstance(target, str) and slot.known and find_kind_problem(target, slot) is None
    place, target = replace(slot, known=known), str(target)
    names = list(read_parameters(target)) if known else []
    args = node.get("_args_")
    for index, item in enumerate(args if isinstance(args, list | tuple) else ()):
        name = names[index] if index < len(names) else f"argument {index}"
        yield from walk_slots(item, place.parameter(name, target, f"_args_.{index}"))
    for key, item in node.items():
        if key not in RESERVED:
            yield from walk_slots(item, place.parameter(str(key), target))


def read_parameters(target: Any) -> Mapping[str, Parameter]:
    """The parameters of a class by name; none where source does not tell."""
    try:
        signature = read_signature(target) if isinstance(target, str) else None
    except ConfigError:
        return {}
    return signature.parameters if signature else {}


def find_kind_problem(target: str, slot: Slot) -> str | None:
    """Why a class does not belong in a place, or None: it does, or only importing it could tell (`is_undecided`)."""
    kinds = slot.kinds
    if not slot.known or any(judge_kind(target, kind) is not False for kind in kinds):
        return None
    if not slot.path:
        return f"_target_ {target} is no component that a configuration builds; name one of a group: aptlab ls"
    if not kinds:
        asked = f"{slot.owner} takes no component" if slot.owner else "no component belongs here"
        return f"_target_ {target}: {asked}; give a plain value, or leave it out"
    return describe_problem(target, slot, slot.base or kinds[0])


def is_undecided(target: str, slot: Slot) -> bool:
    """Whether source does not tell if a class of another package belongs in a place."""
    return not any(judge_kind(target, kind) for kind in slot.kinds)


@functools.cache
def judge_kind(target: str, kind: str) -> bool | None:
    """Whether a class is of a kind; None where source does not tell.

    A class of ours derives from the kind. One of another package may also satisfy a Protocol by its methods alone.
    """
    if target in LISTED.get(kind, ()):
        return True
    if kind in BROAD and target.partition(".")[0] == OURS:
        return False
    derived = derives_from(target, kind)
    whole = derived is not False and find_base_problem(target, kind) is None
    if target.partition(".")[0] == OURS:
        return derived is True and whole
    if derived is False:
        return asks_for_methods_alone(kind) and find_base_problem(target, kind) is None
    return derived if whole else False


def describe_problem(target: str, slot: Slot, kind: str) -> str:
    """One line: the class, what belongs in the place, the way out, and which classes of others are allowed."""
    problem = find_base_problem(target, kind)
    steps = ["derive from it"] if problem is None or problem.derive else []
    steps += [f"write {', '.join(problem.missing)}"] if problem and problem.missing else []
    way = f"; aptlab ls {slot.path.partition('.')[0]} lists them" if slot.base else ""
    return f"{target} is no whole {kind}, which {slot.owner} must be; {' and '.join(steps)}{way}{name_listed(slot)}"


def name_listed(slot: Slot) -> str:
    """What of other projects is allowed in a place, for a message."""
    names = [name for kind in slot.kinds for name in LISTED.get(kind, ()) if not name.startswith(f"{OURS}.")]
    return f"; of other projects {', '.join(dict.fromkeys(names))} may stand there" if names else ""
