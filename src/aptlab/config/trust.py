"""Which `_target_` may be built. A configuration from a checkpoint or a web page is code otherwise.

A target must be a class of the kind that belongs in its place (`aptlab.config.slots`), read from source before anything
is imported; then the class that is found must be of a package that is trusted, so that no alias such as
`aptlab.x.subprocess.Popen` passes. Functions are no targets.
"""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Callable, Iterator
from typing import Any

from aptlab.config.bases import OURS
from aptlab.config.listed import EVERYWHERE
from aptlab.config.renamed import find_target_rename
from aptlab.config.search_path import list_extensions
from aptlab.config.slots import Slot, describe_problem, find_kind_problem, is_undecided, name_listed
from aptlab.config.static.signatures import read_signature
from aptlab.errors import ConfigError

ENV = "APTLAB_TRUST"


def list_trusted_prefixes() -> tuple[str, ...]:
    """Packages whose classes may be targets where they belong: ours, extensions, and names in $APTLAB_TRUST."""
    installed = [entry.module.partition(".")[0] for entry in list_extensions()]
    named = [name.strip().rstrip(".") for name in os.environ.get(ENV, "").split(",")]
    return tuple(dict.fromkeys([OURS, *installed, *(name for name in named if name)]))


def _under(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


def find_target_problem(target: Any, prefixes: tuple[str, ...]) -> str | None:
    """What is wrong with a target's name, or None; imports nothing."""
    if not isinstance(target, str):
        return f"_target_ must be a dotted name, got {target!r}"
    parts = target.split(".")
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        return f"_target_ {target!r} is not a dotted name such as aptlab.nn.positions.rope.YaRN"
    if not _under(target, prefixes) and target not in EVERYWHERE:
        return (
            f"_target_ {target} is not trusted; allowed: {', '.join(prefixes)}, "
            f"and packages named in the environment variable {ENV}"
        )
    if any(part.startswith("_") for part in parts):
        return f"_target_ {target} is no component and may not be built from a configuration"
    return None


def find_slot_problem(target: Any, slot: Slot, prefixes: tuple[str, ...]) -> str | None:
    """What is wrong with a class in its place, by name and by kind, or None; imports nothing."""
    problem = find_target_problem(target, prefixes)
    if problem:
        return problem + (name_listed(slot) if "not trusted" in problem else "")
    try:
        read_signature(target)
    except ConfigError as error:  # there is no such class, and the nearest name helps more than the kind
        return f"_target_ {target}: {error}"
    return find_kind_problem(target, slot)


def walk_target_nodes(plain: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """(path, node) of every dict with a `_target_`, parents first."""
    if isinstance(plain, dict):
        if "_target_" in plain:
            yield path, plain
        for key, value in plain.items():
            yield from walk_target_nodes(value, f"{path}.{key}" if path else str(key))
    elif isinstance(plain, list | tuple):
        for index, value in enumerate(plain):
            yield from walk_target_nodes(value, f"{path}.{index}" if path else str(index))


def import_placed_target(target: Any, slot: Slot, prefixes: tuple[str, ...]) -> Callable[..., Any]:
    """Import the class of a node and return it, if it belongs in its place; else ConfigError, before that if it can."""
    if problem := find_target_rename(target) or find_slot_problem(target, slot, prefixes):
        raise ConfigError(problem)
    found = import_target(target, prefixes)
    if is_undecided(target, slot) and not any(_is_of_kind(found, _import(kind)) for kind in slot.kinds):
        raise ConfigError(describe_problem(target, slot, slot.base or slot.kinds[0]))
    return found


def import_target(target: str, prefixes: tuple[str, ...]) -> Callable[..., Any]:
    """Import a class and return it, if it and its own module are trusted; else ConfigError."""
    problem = find_target_rename(target) or find_target_problem(target, prefixes)
    if problem:
        raise ConfigError(problem)
    found = _import(target)
    home = getattr(found, "__module__", "") or ""
    if not inspect.isclass(found):
        raise ConfigError(f"_target_ {target} is not a class")
    if home.partition(".")[0] != target.partition(".")[0] and not _under(home, prefixes):
        raise ConfigError(f"_target_ {target} is really {home}.{found.__qualname__}, which is not trusted")
    return found


def _is_of_kind(found: Any, kind: Any) -> bool:
    """Whether an imported class is of a kind; a Protocol asks for its methods alone."""
    if not getattr(kind, "_is_protocol", False):
        return issubclass(found, kind)
    return {name for name in (*vars(kind), *kind.__annotations__) if not name.startswith("_")} <= set(dir(found))


def _import(target: str) -> Any:
    """The object behind a dotted name: its longest importable module, then attributes."""
    parts = target.split(".")
    module, rest = importlib.import_module(parts[0]), parts[1:]
    while rest:
        name = f"{module.__name__}.{rest[0]}"
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name not in (name, module.__name__):
                raise
            break
        rest = rest[1:]
    found: Any = module
    for part in rest:
        if not hasattr(found, part):
            raise ConfigError(f"_target_ {target}: {module.__name__} has no {'.'.join(rest)}")
        found = getattr(found, part)
    return found
