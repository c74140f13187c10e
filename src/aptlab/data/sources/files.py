"""Text files of your own."""

from __future__ import annotations

import glob
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from aptlab.data.sources.base import Document, Note, Source
from aptlab.data.sources.readers import SUFFIXES, DocumentRow, match_suffix, read_rows
from aptlab.errors import ConfigError, DataError, suggest_option


@dataclass(frozen=True)
class TextFiles(Source):
    """Your own files: .txt and .md (one document per file), .jsonl and .parquet (one per row), also .gz.

    `files` is a glob or a list of globs (`**` goes into folders); `field` names the column with the text.
    `on_bad="error"` stops at the first bad row with file and line; `"skip"` leaves it out and counts it.
    Raises DataError (no match, unknown suffix, bad row) and ConfigError (a wrong option).
    """

    name: ClassVar[str] = "files"
    files: str | Sequence[str]
    field: str = "text"
    on_bad: str = "error"

    def __post_init__(self) -> None:
        if self.on_bad not in ("error", "skip"):
            raise ConfigError(f"on_bad={self.on_bad}{suggest_option(self.on_bad, ['error', 'skip'])}")
        if not self.files:
            raise ConfigError("files is empty; give a glob, such as files='texts/*.txt'")

    def documents(self, note: Note | None = None) -> Iterator[Document]:
        bad: list[str] = []
        good = count = 0
        for name, path in self._paths():
            for row in read_rows(path, self.field):
                if row.problem is None:
                    good += 1
                    yield (name if row.line is None else f"{name}:{row.line}"), row.text
                    continue
                self._refuse(path, row)
                count += 1
                bad = bad or [_where(path, row)]
        if count and note:
            note(f"left out {count} bad of {count + good} rows; the first: {bad[0]}")

    def fingerprint(self) -> str:
        total = hashlib.sha256(json.dumps([self.field, self.on_bad]).encode())
        for name, path in self._paths():
            with path.open("rb") as file:
                total.update(f"{name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
        return total.hexdigest()

    def _refuse(self, path: Path, row: DocumentRow) -> None:
        if self.on_bad == "error":
            raise DataError(f"{_where(path, row)}; mend the file or set on_bad=skip")

    def _paths(self) -> list[tuple[str, Path]]:
        """Name and path of every matching file; names are relative to the fixed part of their glob."""
        globs = [self.files] if isinstance(self.files, str) else list(self.files)
        found: dict[Path, str] = {}
        for pattern in globs:
            base = _fixed_part(pattern)
            paths = [Path(p) for p in glob.glob(os.path.expanduser(pattern), recursive=True)]
            paths = [path for path in paths if path.is_file()]
            if not paths:
                raise DataError(f"files={pattern} matches no file (looked in {Path.cwd()}); check the path")
            for path in paths:
                if match_suffix(path) is None:
                    raise DataError(f"{path} is no text file aptlab can read; allowed: {', '.join(SUFFIXES)}")
                found.setdefault(path, os.path.relpath(path, base))
        return sorted((name, path) for path, name in found.items())


def _where(path: Path, row: DocumentRow) -> str:
    return f"{path}: {row.problem}" if row.line is None else f"{path}, line {row.line}: {row.problem}"


def _fixed_part(pattern: str) -> str:
    """The folder in front of the first wildcard of a glob.

    >>> _fixed_part("texts/**/*.md")
    'texts'
    """
    parts = Path(os.path.expanduser(pattern)).parts
    fixed = [*parts[:-1]]
    for number, part in enumerate(fixed):
        if glob.has_magic(part):
            fixed = fixed[:number]
            break
    return str(Path(*fixed)) if fixed else "."
