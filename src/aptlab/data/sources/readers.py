"""Read documents out of files, one `Row` at a time, and say what is wrong with a row instead of raising.

`.txt` and `.md` hold one document per file, `.jsonl` one per line, `.parquet` one per row; `.gz` may follow
the first three.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from aptlab.data.sources.fields import EMPTY, NO_FIELD, RowProblem, list_other_fields, read_field
from aptlab.data.sources.parquet_ends import find_end_problem
from aptlab.errors import DataError

SUFFIXES = (".txt", ".md", ".jsonl", ".txt.gz", ".md.gz", ".jsonl.gz", ".parquet")
GZIP_ERRORS = (EOFError, gzip.BadGzipFile, zlib.error)
DIGITS = 100  # of an integer that is too long for Python to read, which no document is made of


class DocumentRow(NamedTuple):
    """A document, or `problem` in its place; `line` counts from 1, None when the file is the document."""

    line: int | None
    text: str
    problem: RowProblem | None = None


def match_suffix(path: Path) -> str | None:
    """The suffix of `SUFFIXES` that `path` ends with, or None."""
    return next((suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix)), None)


def read_rows(path: Path, field: str, *, limit: int | None = None) -> Iterator[DocumentRow]:
    """All rows of one file in order; `field` names the column that holds the text, or is a path to it.

    With `limit` those of the first so many bytes, unpacked, without a row that is cut off there.
    Raises DataError when the file cannot be opened or pyarrow is missing; everything else is a row's problem.
    """
    try:
        if path.stat().st_size == 0:
            yield _no_text("the file is empty")
            return
        kind = match_suffix(path) or ""
        if kind == ".parquet":
            yield from _parquet(path, field)
            return
        with _open(path) as file:
            lines = kind.startswith(".jsonl")
            part = file if limit is None else _read_beginning(file, limit, lines=lines)
            yield from _lines(part, field) if lines else _whole(part)
    except GZIP_ERRORS as error:
        yield _bad(None, "the gzip stream is damaged", f": {error}")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def _open(path: Path) -> IO[bytes]:
    if path.name.lower().endswith(".gz"):
        return cast(IO[bytes], gzip.open(path, "rb"))
    return path.open("rb")


def _read_beginning(file: IO[bytes], limit: int, *, lines: bool) -> IO[bytes]:
    """The first `limit` bytes, cut after a whole line or a whole character."""
    data = file.read(limit)
    if len(data) == limit and lines:
        data = data[: data.rfind(b"\n") + 1]
    elif len(data) == limit:
        while data and data[-1] & 0xC0 == 0x80:
            data = data[:-1]
        data = data[:-1]
    return io.BytesIO(data)


def _no_text(why: str) -> DocumentRow:
    return DocumentRow(None, "", RowProblem(EMPTY, why))


def _bad(line: int | None, kind: str, detail: str = "") -> DocumentRow:
    return DocumentRow(line, "", RowProblem(kind, f"{kind}{detail}"))


def _whole(file: IO[bytes]) -> Iterator[DocumentRow]:
    try:
        data = file.read()
        text = data.decode("utf-8-sig")
    except GZIP_ERRORS as error:
        yield _bad(None, "the gzip stream is damaged", f": {error}")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        yield _bad(line, "not UTF-8", f": byte 0x{data[error.start]:02x}")
    else:
        yield DocumentRow(None, text) if text else _no_text("the file is empty")


def _lines(file: IO[bytes], field: str) -> Iterator[DocumentRow]:
    number = 0
    found = False
    try:
        for number, line in enumerate(file, start=1):
            if line.strip():
                found = True
                yield _json_row(number, line, field)
    except GZIP_ERRORS as error:
        yield _bad(number + 1, "the gzip stream is damaged", f": {error}")
        return
    if not found:
        yield _no_text("the file is empty" if number == 0 else "the file has blank lines only")


def _json_row(number: int, line: bytes, field: str) -> DocumentRow:
    try:
        row = read_json(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        return _bad(number, "not UTF-8", f": byte 0x{line[error.start]:02x} at column {error.start + 1}")
    except json.JSONDecodeError as error:
        return _bad(number, "bad JSON", f": {error.msg} at column {error.colno}")
    except RecursionError:
        return _bad(number, "bad JSON", ": nested too deeply")
    if not isinstance(row, Mapping):
        return _bad(number, "expects a JSON object", f", got {type(row).__name__}")
    return _make_row(number, read_field(row, field))


def read_json(text: str) -> Any:
    """The value of a JSON text, whatever integers are in it: of one with thousands of digits the first are read.

    Python reads no integer of more than 4,300 digits unless it is told to, and then it takes long.
    Raises json.JSONDecodeError and RecursionError.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except ValueError:
        return json.loads(text, parse_int=lambda digits: int(digits[:DIGITS]))


def _make_row(number: int, found: str | RowProblem) -> DocumentRow:
    return DocumentRow(number, found) if isinstance(found, str) else DocumentRow(number, "", found)


def _parquet(path: Path, field: str) -> Iterator[DocumentRow]:
    if problem := find_end_problem(path):
        yield _bad(1, "damaged parquet", f": {problem}")
        return
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise DataError(f"{path} needs pyarrow to be read; pip install 'aptlab[parquet]'") from error
    number = 0
    try:
        with pq.ParquetFile(path) as table:
            names = list(_list_columns(table.schema_arrow))
            texts = tuple(_list_columns(table.schema_arrow, text=True))
            if not any(name == field or name.startswith(f"{field}.") for name in names):
                tail = list_other_fields(field, names)
                yield DocumentRow(None, "", RowProblem(NO_FIELD, f"has no column {field!r}{tail}", texts))
                return
            for batch in table.iter_batches(batch_size=1024, columns=[field]):
                for row in batch.to_pylist():
                    number += 1
                    yield _make_row(number, _name_columns(read_field(row, field), texts))
    except (pa.ArrowException, OSError) as error:
        yield _bad(number + 1, "damaged parquet", f": {str(error).splitlines()[0][:120]}")
        return
    if number == 0:
        yield _no_text("the file has no rows")


def _name_columns(found: str | RowProblem, texts: tuple[str, ...]) -> str | RowProblem:
    """A column that holds no text is answered with those that do, for a row was read without them."""
    return found if isinstance(found, str) or found.kind == EMPTY else found._replace(fields=texts)


def _list_columns(fields: Any, prefix: str = "", *, text: bool = False) -> Iterator[str]:
    """Names of the columns, those inside structs as paths; `fields` is a schema or the type of a struct.

    With `text` only those that hold text.
    """
    from pyarrow import types

    for field in fields:
        if types.is_struct(field.type):
            yield from _list_columns(field.type, f"{prefix}{field.name}.", text=text)
        elif not text or types.is_string(field.type) or types.is_large_string(field.type):
            yield f"{prefix}{field.name}"
