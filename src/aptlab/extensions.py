"""Entry points of installed packages that add options or commands. Nothing of them is imported here."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib import metadata

_OUR_GROUP = re.compile(rb"^\s*\[\s*aptlab\.", re.MULTILINE)
CONF, COMMANDS = "aptlab.conf", "aptlab.commands"


def list_entry_points(group: str) -> list[metadata.EntryPoint]:
    """The entry points of a group, by name."""
    return list(_read_entry_points(tuple(sys.path), group))


@functools.lru_cache(maxsize=8)
def _read_entry_points(path: tuple[str, ...], group: str) -> tuple[metadata.EntryPoint, ...]:
    if not _is_named_anywhere(path):
        return ()
    from importlib import metadata

    return tuple(sorted(metadata.entry_points(group=group), key=lambda entry: entry.name))


@functools.lru_cache(maxsize=4)
def _is_named_anywhere(path: tuple[str, ...]) -> bool:
    """Whether an installed package names a group of ours.

    Most often none does, and to see that needs neither `importlib.metadata`, slow to import, nor the metadata of all
    packages. What is imported out of an archive is left to it.
    """
    for folder in path:
        if os.path.isfile(folder):
            return True
        try:
            names = [name for name in os.listdir(folder or ".") if name.endswith((".dist-info", ".egg-info"))]
        except OSError:
            continue
        for name in names:
            with contextlib.suppress(OSError), open(os.path.join(folder, name, "entry_points.txt"), "rb") as file:
                if _OUR_GROUP.search(file.read()):
                    return True
    return False


def list_extension_commands() -> dict[str, metadata.EntryPoint]:
    """Commands of installed packages by name: entry points `name = "package.module:run"`."""
    return {entry.name: entry for entry in list_entry_points(COMMANDS)}
