"""Files that globs name: found, named, each once."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path

from aptlab.data.sources.readers import SUFFIXES, match_suffix
from aptlab.errors import DataError

NamedPath = tuple[str, Path]


def find_files(patterns: Sequence[str]) -> tuple[list[NamedPath], list[str]]:
    """Name and path of every file, sorted, and a line for each that was named once more.

    A pattern that is the path of a file is that file, whatever signs are in it; every other is a glob. Names are
    relative to the fixed part of their glob. Two paths of the same file, through links or another spelling, count
    once, under the name that sorts first. Raises DataError for a pattern without a file and for an unknown suffix.
    """
    found: dict[Path, str] = {}
    for pattern in patterns:
        for path in _match(pattern):
            if match_suffix(path) is None:
                raise DataError(f"{path} is no text file aptlab can read; allowed: {', '.join(SUFFIXES)}")
            found.setdefault(path, os.path.relpath(path, _fixed_part(pattern)))
    first: dict[tuple[int, int] | str, NamedPath] = {}
    again = []
    for name, path in sorted((name, path) for path, name in found.items()):
        before = first.setdefault(_identify(path), (name, path))
        if before != (name, path):
            again.append(f"{path} is the same file as {before[1]}, and counts once")
    return list(first.values()), again


def _match(pattern: str) -> list[Path]:
    """The files of one pattern."""
    literal = Path(os.path.expanduser(pattern))
    if literal.is_file():
        return [literal]
    paths = [Path(path) for path in glob.glob(os.path.expanduser(pattern), recursive=True)]
    files = [path for path in paths if path.is_file()]
    if not files and literal.is_dir():
        raise DataError(f"files={pattern} is a folder; name the files in it, as in files='{literal / '**' / '*.txt'}'")
    if not files:
        raise DataError(f"files={pattern} matches no file (looked in {Path.cwd()}); check the path")
    return files


def _identify(path: Path) -> tuple[int, int] | str:
    """What two paths of one file have in common; some file systems number no files, there it is the real path."""
    facts = path.stat()
    return (facts.st_dev, facts.st_ino) if facts.st_ino else os.path.realpath(path)


def _fixed_part(pattern: str) -> str:
    """The folder in front of the first wildcard of a glob.

    >>> _fixed_part("texts/**/*.md")
    'texts'
    """
    expanded = os.path.expanduser(pattern)
    fixed = [*Path(expanded).parts[:-1]]
    if not Path(expanded).is_file():
        for number, part in enumerate(fixed):
            if glob.has_magic(part):
                fixed = fixed[:number]
                break
    return str(Path(*fixed)) if fixed else "."
