"""Entry points of installed packages that add options or commands. Nothing of them is imported here."""

from __future__ import annotations

import functools
import sys
from importlib import metadata

CONF, COMMANDS = "aptlab.conf", "aptlab.commands"


def list_entry_points(group: str) -> list[metadata.EntryPoint]:
    """The entry points of a group, by name."""
    return list(_read_entry_points(tuple(sys.path), group))


@functools.lru_cache(maxsize=8)
def _read_entry_points(path: tuple[str, ...], group: str) -> tuple[metadata.EntryPoint, ...]:
    """Reading the metadata of every installed package takes a while, so once per search path."""
    del path
    return tuple(sorted(metadata.entry_points(group=group), key=lambda entry: entry.name))


def list_extension_commands() -> dict[str, metadata.EntryPoint]:
    """Commands of installed packages by name: entry points `name = "package.module:run"`."""
    return {entry.name: entry for entry in list_entry_points(COMMANDS)}
