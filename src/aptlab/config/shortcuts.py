"""Keys that say two things at once: `data.files=x` chooses `source=text` and sets `source.files=x`."""

from __future__ import annotations

from collections.abc import Sequence

from aptlab.errors import ConfigError

# key -> the group and option that it chooses, and the key that it sets.
SHORTCUTS = {
    "data.files": ("source", "text", "source.files"),
    "data.repo": ("source", "hub", "source.repo"),
}


def expand_shortcuts(texts: Sequence[str]) -> list[str]:
    """The overrides without shortcuts, so that the choice is recorded like any other; equal when done twice.

    Raises ConfigError where the group is given with another option, or another shortcut chooses one.
    """
    by_key = {text.partition("=")[0].lstrip("+"): text for text in texts}
    problems = []
    chosen: dict[str, tuple[str, str]] = {}
    for key, (group, option, _) in SHORTCUTS.items():
        if key not in by_key:
            continue
        other = by_key.get(group, f"{group}={option}")
        if other.partition("=")[2].strip("'\"") != option:
            problems.append(f"{by_key[key]}: chooses {group}={option}, and {other} is given too; leave one out")
        if group in chosen:
            problems.append(
                f"{by_key[key]}: chooses {group}={option}, and {chosen[group][0]} is given too; leave one out"
            )
        chosen.setdefault(group, (by_key[key], option))
    if problems:
        raise ConfigError("\n".join(problems))
    choices = [f"{group}={option}" for group, (_, option) in chosen.items() if group not in by_key]
    return [*choices, *(_set_key(text) for text in texts)]


def _set_key(text: str) -> str:
    key, equals, value = text.partition("=")
    shortcut = SHORTCUTS.get(key.lstrip("+"))
    return f"{shortcut[2]}{equals}{value}" if shortcut and equals else text
