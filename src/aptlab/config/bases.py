"""What the options of a group must be: one table of base classes, and what is said of a class that is none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from aptlab.config.files import read_config_file
from aptlab.config.search_path import GROUPS_FILE, LOCAL, SHIPPED, OptionIndex, list_config_roots
from aptlab.config.static.classes import find_base_problem
from aptlab.errors import ConfigError

OURS = "aptlab"


def read_group_bases() -> dict[str, str]:
    """Group (or `callbacks.*`, the parts of a group) -> dotted name of its base, over all places with options.

    ConfigError for a group that has two bases: an extension says what its own groups are, not what others' are. A base
    in ./conf, which somebody may have sent, is one of those, or a class of a package that is trusted.
    """
    found: dict[str, str] = {}
    for root in list_config_roots():
        path = root.path / GROUPS_FILE
        for group, base in (read_config_file(path) if path.is_file() else {}).items():
            if root.name == LOCAL and base not in found.values() and str(base).partition(".")[0] == OURS:
                raise ConfigError(
                    f"{path}: {base} is the kind of no group of aptlab, so {group} cannot be of it; allowed: "
                    f"{', '.join(sorted(set(found.values())))}, and classes of a package of yours"
                )
            if found.setdefault(group, base) != base:
                raise ConfigError(
                    f"{path}: the options of {group} are {found[group]}, not {base}; leave the line out, or give your "
                    "group another name"
                )
    return found


def find_slot_base(path: str, bases: Mapping[str, str]) -> str | None:
    """The base that the table names for a path: a group, a place inside it such as `data.rows`, or `callbacks.*`."""
    group, _, inner = path.partition(".")
    return bases.get(path) or (bases.get(f"{group}.*") if inner and "." not in inner else None)


def find_contract_problem(path: str, target: str, bases: Mapping[str, str]) -> str | None:
    """What a component of a group lacks of what the group asks, or None.

    path    of the node: the group, or one part inside it
    target  the class of the node
    """
    base, group = find_slot_base(path, bases), path.partition(".")[0]
    problem = find_base_problem(target, base) if base else None
    if problem is None:
        return None
    steps = [
        *(["derive from it"] if problem.derive else []),
        *([f"write {', '.join(problem.missing)}"] * bool(problem.missing)),
    ]
    return f"{target} is no whole {base}, which every option of {group} must be; {' and '.join(steps)}"


def find_empty_options(values: Mapping[str, Any], choices: Mapping[str, Any], index: OptionIndex) -> Iterator[str]:
    """`group: problem` for every chosen option that names no class, in a group whose first shipped option does."""
    for group, choice in choices.items():
        node, option = values.get(group), index.groups.get(group, {}).get(str(choice))
        if option is None or not isinstance(node, Mapping) or "_target_" in node:
            continue
        shipped = (item for item in index.groups[group].values() if item.place.name == SHIPPED and item is not option)
        other = next(shipped, None)
        target = read_config_file(other.path).get("_target_") if other else None
        if other is None or target is None:
            continue
        holds = f"it holds {', '.join(map(str, node))}" if node else "it is empty"
        yield (
            f"{group}: {option.path} has no _target_ ({holds}), so nothing can be built from it; write the class that "
            f"it is, as in `_target_: {target}`; aptlab cp {group}/{other.name} <name> writes one to begin with"
        )
