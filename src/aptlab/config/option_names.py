"""The option that builds a class: `yarn` for the class of conf/rope/yarn.yaml. The files are the only list of them."""

from __future__ import annotations

import ast

from aptlab.config.files import read_config_entries
from aptlab.config.search_path import read_option_index
from aptlab.config.static.source import find_definition, split_target
from aptlab.errors import ConfigError


def find_option_name(group: str, kind: type) -> str | None:
    """The option of `group` whose `_target_` is the class, or None. Nothing is imported.

    Of several options with one class that counts which is called as the class is (`partial` of Partial, `rms` of
    RMSNorm; the others are its presets), else the first: shipped ones before those of extensions and of ./conf.
    """
    found = []
    for option in read_option_index().groups.get(group, {}).values():
        entries = read_config_entries(option.path)
        target = next((entry.value.strip("'\"") for entry in entries if entry.key == "_target_"), "")
        if target.rpartition(".")[2] == kind.__name__ and names_class(target, kind):
            found.append(option.name)
    called = [name for name in found if kind.__name__.lower().startswith(name.replace("_", ""))]
    return next(iter([*called, *found]), None)


def get_option_name(group: str, kind: type) -> str:
    """The option of `group` that builds the class, or the name of a class that has none, for messages."""
    return find_option_name(group, kind) or kind.__name__


def require_option_name(group: str, kind: type) -> str:
    """The option of `group` that builds the class; ConfigError where no file names it."""
    name = find_option_name(group, kind)
    if name is None:
        raise ConfigError(
            f"no option of {group} builds {kind.__module__}.{kind.__name__}; add conf/{group}/<name>.yaml with "
            f"_target_: {kind.__module__}.{kind.__name__}"
        )
    return name


def names_class(target: str, kind: type) -> bool:
    """Whether a `_target_` is the class, through re-exports too."""
    try:
        located = split_target(target)
    except ConfigError:  # a file that names a package which is gone names nothing
        return False
    found = find_definition(located[0], located[1][0]) if located and len(located[1]) == 1 else None
    if found is None or not isinstance(found.node, ast.ClassDef):
        return False
    return (found.module.name, found.node.name) == (kind.__module__, kind.__qualname__)
