"""Words that say two things at once: `data.files=x` chooses `source=text` and sets `source.files=x`.

`model=apt` chooses `task=seq2seq`, which trains it, where no task is given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aptlab.config.files import read_config_file
from aptlab.config.search_path import read_option_index
from aptlab.errors import ConfigError

# key -> the group and option that it chooses, and the key that it sets.
SHORTCUTS = {
    "data.files": ("source", "text", "source.files"),
    "data.repo": ("source", "hub", "source.repo"),
    "data.segments": ("data", "segments", "data.rows.segments"),
}

# Choice that goes with one of another group alone -> that one, taken where the other group is not given.
IMPLIED = {"model=apt": "task=seq2seq"}

# Class of a node -> the keys of its group that a shortcut sets, and what a user types for them.
TYPED = {
    "aptlab.data.sources.TextFiles": {"source.files": "data.files"},
    "aptlab.data.sources.Hub": {"source.repo": "data.repo"},
    "aptlab.data.rows.Segments": {"data.rows.segments": "data.segments"},
}


def write_typed_key(key: str, target: object) -> str:
    """The shortcut for a key of a node of this class, which messages name; any other key as it is.

    >>> write_typed_key("source.files", "aptlab.data.sources.TextFiles")
    'data.files'
    """
    return TYPED.get(str(target), {}).get(key, key)


def expand_shortcuts(texts: Sequence[str]) -> list[str]:
    """The overrides without shortcuts, so that the choice is recorded like any other; equal when done twice.

    An option of the same class, such as a source of your own files, keeps the choice. Raises ConfigError where the
    group is given with any other option, or another shortcut chooses one.
    """
    by_key = {text.partition("=")[0].lstrip("+"): text for text in texts}
    problems = []
    chosen: dict[str, tuple[str, str]] = {}
    for key, (group, option, _) in SHORTCUTS.items():
        if key not in by_key:
            continue
        other = by_key.get(group, f"{group}={option}")
        given = other.partition("=")[2].strip("'\"")
        if given != option and not _is_of_one_class(group, SHORTCUTS[key][2], given, option):
            problems.append(f"{by_key[key]}: chooses {group}={option}, and {other} is given too; leave one out")
        if group in chosen:
            problems.append(
                f"{by_key[key]}: chooses {group}={option}, and {chosen[group][0]} is given too; leave one out"
            )
        chosen.setdefault(group, (by_key[key], option))
    if problems:
        raise ConfigError("\n".join(problems))
    choices = [f"{group}={option}" for group, (_, option) in chosen.items() if group not in by_key]
    choices += [other for word, other in IMPLIED.items() if word in texts and other.partition("=")[0] not in by_key]
    return [*choices, *(_set_key(text) for text in texts)]


def _is_of_one_class(group: str, key: str, *names: str) -> bool:
    """Whether all of these are options of the group, with the same `_target_` on the whole way to the key."""
    options = read_option_index().groups.get(group, {})
    known = [_list_classes(read_config_file(options[name].path), key) for name in names if name in options]
    return len(known) == len(names) and len(set(known)) == 1


def _list_classes(node: Any, key: str) -> tuple[Any, ...]:
    """The `_target_` of an option, and of each part of it on the way to a key such as `data.rows.segments`."""
    found = []
    for word in key.split(".")[1:]:
        if not isinstance(node, Mapping):
            break
        found.append(node.get("_target_"))
        node = node.get(word)
    return tuple(found)


def _set_key(text: str) -> str:
    key, equals, value = text.partition("=")
    shortcut = SHORTCUTS.get(key.lstrip("+"))
    return f"{shortcut[2]}{equals}{value}" if shortcut and equals else text
