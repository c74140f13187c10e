"""Read documents out of files, one `Row` at a time, and say what is wrong with a row instead of raising.

`.txt` and `.md` hold one document per file, `.jsonl` one per line, `.parquet` one per row; `.gz` may follow
the first three.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from aptlab.errors import DataError, suggest_option

SUFFIXES = (".txt", ".md", ".jsonl", ".txt.gz", ".md.gz", ".jsonl.gz", ".parquet")
GZIP_ERRORS = (EOFError, gzip.BadGzipFile, zlib.error)


class DocumentRow(NamedTuple):
    """A document, or `problem` in its place; `line` counts from 1, None when the file is the document."""

    line: int | None
    text: str
    problem: str | None = None


def match_suffix(path: Path) -> str | None:
    """The suffix of `SUFFIXES` that `path` ends with, or None."""
    return next((suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix)), None)


def read_rows(path: Path, field: str) -> Iterator[DocumentRow]:
    """All rows of one file in order; `field` names the column that holds the text.

    Raises DataError when the file cannot be opened or pyarrow is missing; everything else is a row's problem.
    """
    try:
        if path.stat().st_size == 0:
            yield DocumentRow(None, "", "the file is empty")
            return
        kind = match_suffix(path) or ""
        if kind == ".parquet":
            yield from _parquet(path, field)
            return
        with _open(path) as file:
            yield from _lines(file, field) if kind.startswith(".jsonl") else _whole(file)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def find_text_problem(text: Any, field: str) -> str | None:
    """Why `text` is no document, or None."""
    if not isinstance(text, str):
        return f"field {field!r} expects text, got {type(text).__name__} {str(text)[:40]!r}"
    if not text:
        return f"field {field!r} is empty"
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"field {field!r} holds a lone surrogate at character {error.start}, which UTF-8 cannot store"
    return None


def _open(path: Path) -> IO[bytes]:
    if path.name.lower().endswith(".gz"):
        return cast(IO[bytes], gzip.open(path, "rb"))
    return path.open("rb")


def _whole(file: IO[bytes]) -> Iterator[DocumentRow]:
    try:
        data = file.read()
        text = data.decode("utf-8-sig")
    except GZIP_ERRORS as error:
        yield DocumentRow(None, "", f"the gzip stream is damaged: {error}")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        yield DocumentRow(line, "", f"not UTF-8: byte 0x{data[error.start]:02x}")
    else:
        yield DocumentRow(None, text, None if text else "the file is empty")


def _lines(file: IO[bytes], field: str) -> Iterator[DocumentRow]:
    number = 0
    try:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield _json_row(number, line, field)
    except GZIP_ERRORS as error:
        yield DocumentRow(number + 1, "", f"the gzip stream is damaged: {error}")
    if number == 0:
        yield DocumentRow(None, "", "the file is empty")


def _json_row(number: int, line: bytes, field: str) -> DocumentRow:
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        return DocumentRow(number, "", f"not UTF-8: byte 0x{line[error.start]:02x} at column {error.start + 1}")
    except json.JSONDecodeError as error:
        return DocumentRow(number, "", f"bad JSON: {error.msg} at column {error.colno}")
    except RecursionError:
        return DocumentRow(number, "", "bad JSON: nested too deeply")
    if not isinstance(row, dict):
        return DocumentRow(number, "", f"expects a JSON object, got {type(row).__name__}")
    if field not in row:
        return DocumentRow(number, "", f"has no field {field!r}{suggest_option(field, row)}")
    problem = find_text_problem(row[field], field)
    return DocumentRow(number, "" if problem else row[field], problem)


def _parquet(path: Path, field: str) -> Iterator[DocumentRow]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise DataError(f"{path} needs pyarrow to be read; pip install 'aptlab[parquet]'") from error
    number = 0
    try:
        with pq.ParquetFile(path) as table:
            names = table.schema_arrow.names
            if field not in names:
                yield DocumentRow(None, "", f"has no column {field!r}{suggest_option(field, names)}")
                return
            for batch in table.iter_batches(batch_size=1024, columns=[field]):
                for value in batch.column(0).to_pylist():
                    number += 1
                    problem = find_text_problem(value, field)
                    yield DocumentRow(number, "" if problem else value, problem)
    except (pa.ArrowException, OSError) as error:
        yield DocumentRow(number + 1, "", f"damaged parquet: {str(error).splitlines()[0][:120]}")
        return
    if number == 0:
        yield DocumentRow(None, "", "the file has no rows")
