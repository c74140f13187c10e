"""Where documents come from. A source yields `(name, text)` in a fixed order and knows its fingerprint."""

from __future__ import annotations

import glob
import hashlib
import json
import logging
import os
import sysconfig
import tokenize
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from aptlab.data.sources.readers import SUFFIXES, DocumentRow, find_text_problem, match_suffix, read_rows
from aptlab.errors import ConfigError, DataError, suggest_option
from aptlab.limits import PositiveInt, validate_limits

Note = Callable[[str], None]
Document = tuple[str, str]
log = logging.getLogger("aptlab")


class Source(ABC):
    """A finite stream of documents that can be read more than once.

    `name` is a short word for tables. Two sources with the same `fingerprint()` yield the same documents.
    """

    name: ClassVar[str]

    @abstractmethod
    def documents(self, note: Note | None = None) -> Iterator[Document]:
        """Yield `(name, text)`, no text empty; `note` gets one line about whatever was left out."""

    @abstractmethod
    def fingerprint(self) -> str:
        """64 hex digits that change when a document changes, appears or goes."""


@dataclass(frozen=True)
class Stdlib(Source):
    """The English prose (`pydoc_data.topics`) and the source code of the running Python.

    Every Python has it, so it needs no network; its content depends on the Python version.
    Left out: tests, idlelib, turtledemo, lib2to3, bundled wheels, installed packages, the tables of encodings, and
    files generated for this machine. `parts` chooses among prose and code. Raises DataError when the installation
    has none.
    """

    name: ClassVar[str] = "stdlib"
    parts: Sequence[str] = ("prose", "code")

    SKIPPED: ClassVar[frozenset[str]] = frozenset(
        {"site-packages", "dist-packages", "test", "tests", "idlelib", "turtledemo", "lib2to3", "ensurepip"}
        | {"__pycache__", "pydoc_data", "encodings"}
    )

    def __post_init__(self) -> None:
        for part in self.parts:
            if part not in ("prose", "code"):
                raise ConfigError(f"parts={part}: no such part{suggest_option(part, ['prose', 'code'])}")
        if not self.parts:
            raise ConfigError("parts=[] leaves no text; allowed: prose, code")

    def documents(self, note: Note | None = None) -> Iterator[Document]:
        del note
        if "prose" in self.parts:
            yield from self._prose()
        if "code" in self.parts:
            yield from self._code()

    def fingerprint(self) -> str:
        return fingerprint_parts((name, text.encode()) for name, text in self.documents())

    def _prose(self) -> Iterator[Document]:
        try:
            from pydoc_data.topics import topics
        except ImportError as error:
            raise DataError("parts=prose: this Python has no pydoc_data; use parts=[code]") from error
        for topic in sorted(topics):
            if topics[topic]:
                yield f"prose/{topic}", topics[topic]

    def _code(self) -> Iterator[Document]:
        found = False
        for path in self._files():
            with tokenize.open(path) as file:
                text = file.read()
            if text:
                found = True
                yield f"code/{path.relative_to(self._root()).as_posix()}", text
        if not found:
            raise DataError(f"parts=code: no .py file under {self._root()}; use parts=[prose]")

    @staticmethod
    def _root() -> Path:
        return Path(sysconfig.get_paths()["stdlib"])

    def _files(self) -> Iterator[Path]:
        """All wanted .py files; folders and names are sorted, so the order is the same everywhere."""
        for folder, folders, names in os.walk(self._root()):
            folders[:] = sorted(n for n in folders if n not in self.SKIPPED and not n.startswith("config-"))
            for name in sorted(names):
                if name.endswith(".py") and not name.startswith("_sysconfigdata"):
                    yield Path(folder, name)


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


@dataclass(frozen=True)
class Hub(Source):
    """A data set of the Hugging Face Hub, streamed by the `datasets` library; needs a network.

    `limit` keeps the first documents only. The fingerprint covers these settings, not the content: pin
    `revision` (a commit) when the data set may change. Raises DataError when it cannot be read.
    """

    name: ClassVar[str] = "hub"
    repo: str
    config: str | None = None
    split: str = "train"
    field: str = "text"
    limit: PositiveInt | None = 10_000
    revision: str | None = None

    def __post_init__(self) -> None:
        validate_limits(self)

    def documents(self, note: Note | None = None) -> Iterator[Document]:
        empty = 0
        for number, row in enumerate(self._rows(), start=1):
            where = f"repo={self.repo}, row {number}"
            if self.field not in row:
                raise DataError(f"{where} has no field {self.field!r}{suggest_option(self.field, row)}")
            problem = find_text_problem(row[self.field], self.field)
            if problem and row[self.field] != "":
                raise DataError(f"{where}: {problem}")
            empty += bool(problem)
            if not problem:
                yield f"{self.split}:{number}", row[self.field]
            if number == self.limit:
                break
        if empty and note:
            note(f"left out {empty} empty rows of {self.repo}")

    def fingerprint(self) -> str:
        return fingerprint_parts([("hub", json.dumps(asdict(self), sort_keys=True).encode())])

    def _rows(self) -> Iterator[dict[str, Any]]:
        try:
            from datasets import load_dataset
        except ImportError as error:
            raise DataError("data=hub needs the datasets library; pip install 'aptlab[hf]'") from error
        try:
            yield from load_dataset(self.repo, self.config, split=self.split, revision=self.revision, streaming=True)
        except Exception as error:
            raise DataError(
                f"repo={self.repo} (config {self.config}, split {self.split}) cannot be streamed: "
                f"{type(error).__name__}: {error}; offline, use data=stdlib or data=text with your own files"
            ) from error


def fingerprint_parts(parts: Iterable[tuple[str, bytes]]) -> str:
    """sha256 over names and content hashes, in the order given."""
    total = hashlib.sha256()
    for name, content in parts:
        total.update(f"{name}\0{hashlib.sha256(content).hexdigest()}\n".encode())
    return total.hexdigest()


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
