"""Text files of your own."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from aptlab.data.sources.bad_rows import BadRows, check_on_bad
from aptlab.data.sources.base import Document, Note, Source
from aptlab.data.sources.fields import EMPTY, NO_FIELD, RowProblem, describe_no_text
from aptlab.data.sources.paths import NamedPath, find_files
from aptlab.data.sources.readers import read_rows
from aptlab.errors import ConfigError, DataError, suggest_option
from aptlab.shown import count_nouns

NEWLINES = ("keep", "unix")
INSPECTED = 16  # files that a check looks into
BEGINNING = 1 << 16  # bytes of each that it reads
ENOUGH = 1 << 24  # bytes of files that it reads through for one good row


@dataclass(frozen=True)
class TextFiles(Source):
    """Your own files: .txt and .md (one document per file), .jsonl and .parquet (one per row), also .gz.

    files     a file, a glob or a list of them (`**` goes into folders); a file that is named twice counts once
    field     the column with the text, or a path to it such as `meta.content`
    on_bad    "error" stops at the first bad row with file and line; "skip" leaves bad rows out and counts them
    newlines  "keep" takes line ends as they are; "unix" reads \\r\\n and \\r as \\n, as Python's text mode does

    Empty files and rows are left out and counted. Raises DataError (no match, unknown suffix, bad row, no text) and
    ConfigError (a wrong option).
    """

    name: ClassVar[str] = "files"
    files: str | Sequence[str]
    field: str = "text"
    on_bad: str = "error"
    newlines: str = "keep"

    def __post_init__(self) -> None:
        check_on_bad(self.on_bad)
        if self.newlines not in NEWLINES:
            raise ConfigError(f"newlines={self.newlines}{suggest_option(self.newlines, NEWLINES)}")
        if not self.files:
            raise ConfigError("files is empty; give a glob, such as files='texts/*.txt'")

    def documents(self, note: Note | None = None) -> Iterator[Document]:
        left_out = BadRows()
        good = returns = 0
        paths, again = self._find_files()
        for name, path in paths:
            before = good
            for row in read_rows(path, self.field):
                if row.problem is not None:
                    self._refuse(path, row.line, row.problem, first=good == before)
                    left_out.add(_where(path, row.line), row.problem)
                    continue
                good += 1
                returns += "\r" in row.text
                yield (name if row.line is None else f"{name}:{row.line}"), self._convert_newlines(row.text)
        if not good:
            raise DataError(self._describe_no_text(left_out))
        if note:
            for line in (*_note_same_files(again), *left_out.list_notes(good), *self._note_returns(returns, good)):
                note(line)

    def fingerprint(self) -> str:
        options = [self.field, self.on_bad, *([] if self.newlines == "keep" else [self.newlines])]
        total = hashlib.sha256(json.dumps(options).encode())
        for name, path in self._find_files()[0]:
            with path.open("rb") as file:
                total.update(f"{name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
        return total.hexdigest()

    def find_problems(self) -> Iterator[str]:
        """Files that are not there or cannot be read, a first row that stops a run, and files without a good row."""
        try:
            paths, _ = self._find_files()
        except DataError as error:
            yield str(error)
            return
        locked = [path for _, path in paths if not os.access(path, os.R_OK)]
        if locked:
            yield f"files={locked[0]} cannot be read: Permission denied; {len(locked):,} such"
            return
        if all(path.stat().st_size == 0 for _, path in paths):
            empty = "the file is" if len(paths) == 1 else f"all {count_nouns(len(paths), 'file')} are"
            yield f"{self._describe_files()} has no text: {empty} empty; give files with text"
            return
        stops = [problem for _, path in paths[:INSPECTED] for problem in self._inspect_file(path)]
        yield from stops or self._find_no_text(paths)

    def find_training_problems(self, context: int) -> Iterator[str]:
        """Text that cannot fill one row of `context` tokens: no tokenizer makes more tokens than there are bytes."""
        paths, size = self._find_files()[0], self.count_bytes()
        if size is not None and size + len(paths) <= context:
            yield (
                f"{self._describe_files()} has {size:,} bytes of text, too few for one row of context={context} "
                "tokens; give more text, or a smaller context"
            )

    def count_bytes(self) -> int | None:
        """Those of the files; what packed ones hold is known only when they are read."""
        paths = [path for _, path in self._find_files()[0]]
        packed = any(path.suffix in (".gz", ".parquet") for path in paths)
        return None if packed else sum(path.stat().st_size for path in paths)

    def _inspect_file(self, path: Path) -> Iterator[str]:
        """The first row of a file that stops a run, if one does."""
        rows = list(itertools.islice(read_rows(path, self.field, limit=BEGINNING), 8))
        bad = [(row.line, row.problem) for row in rows if row.problem is not None and row.problem.kind != EMPTY]
        if bad and self.on_bad == "error":
            yield str(self._make_error(path, *bad[0], first=rows[0].problem is bad[0][1]))

    def _find_no_text(self, paths: Sequence[NamedPath]) -> Iterator[str]:
        """What `documents` says where no row is good; past ENOUGH bytes that is left to it."""
        left_out, seen = BadRows(), 0
        for _, path in paths:
            seen += path.stat().st_size
            limit = None if seen <= ENOUGH else BEGINNING
            for row in read_rows(path, self.field, limit=limit):
                if row.problem is None:
                    return
                left_out.add(_where(path, row.line), row.problem)
            if limit is not None:  # the rest may be good
                return
        yield self._describe_no_text(left_out)

    def _refuse(self, path: Path, line: int | None, problem: RowProblem, *, first: bool) -> None:
        if self.on_bad == "error" and problem.kind != EMPTY:
            raise self._make_error(path, line, problem, first=first)

    def _make_error(self, path: Path, line: int | None, problem: RowProblem, *, first: bool) -> DataError:
        """The message of a bad row; `first`: no row of the file was good, so a missing field is a wrong `field`."""
        if problem.kind == NO_FIELD and first:
            return DataError(f"field={self.field}: {_where(path, line)}: {problem.text}; choose one of these")
        return DataError(f"{_where(path, line)}: {problem.text}; mend the file or set on_bad=skip")

    def _convert_newlines(self, text: str) -> str:
        return text.replace("\r\n", "\n").replace("\r", "\n") if self.newlines == "unix" and "\r" in text else text

    def _note_returns(self, count: int, total: int) -> list[str]:
        if not count or self.newlines == "unix":
            return []
        documents = f"{count:,} of {count_nouns(total, 'document')} {'has' if count == 1 else 'have'}"
        return [f"{documents} line ends with \\r, which become tokens; set newlines=unix to read them as \\n"]

    def _describe_no_text(self, left_out: BadRows) -> str:
        """The message where not one row is good."""
        if left_out.fields:
            return describe_no_text(self.field, self._describe_files().removeprefix("files="), left_out.fields)
        return f"{self._describe_files()} has no text: {'; '.join(left_out.list_notes(0))}"

    def _find_files(self) -> tuple[list[NamedPath], list[str]]:
        return find_files([self.files] if isinstance(self.files, str) else list(self.files))

    def _describe_files(self) -> str:
        return f"files={self.files if isinstance(self.files, str) else ','.join(self.files)}"


def _note_same_files(again: list[str]) -> list[str]:
    more = f" ({len(again):,} such)" if len(again) > 1 else ""
    return [f"{again[0]}{more}"] if again else []


def _where(path: Path, line: int | None) -> str:
    return f"{path}" if line is None else f"{path}, line {line}"
