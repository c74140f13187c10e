"""metrics.csv.sum: a checksum of every row of metrics.csv, so that the table itself stays plain CSV for any program.

A line is 8 hex digits, the CRC-32 of a line of the table without its end, and the step of that line, or `header`:

    1f0c9a3b header
    77d04e12 1

A row is written again while values join it, so a step may have several lines; a row is whole when it has one of them.
They are written before the row is: a process that dies in between leaves a sum without its row, never a row without
its sum. A table without this file is of an earlier version, and is read as it is. No torch.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from aptlab.runs.files import open_file

HEADER = "header"
_LINE = re.compile(r"([0-9a-f]{8}) (header|\d+)")
Sums = dict[str, set[str]]


def make_sums_path(path: str | Path) -> Path:
    """The file of checksums beside a table."""
    path = Path(path)
    return path.with_name(f"{path.name}.sum")


def sum_line(line: str) -> str:
    """8 hex digits of a line, whatever its end is."""
    return f"{zlib.crc32(line.rstrip(chr(10)).encode('utf-8', 'surrogatepass')):08x}"


def format_sums(lines: Iterable[str]) -> str:
    """The lines of the checksums of lines of a table, of which the header begins with `step`."""
    return "".join(f"{sum_line(line)} {_name_line(line)}\n" for line in lines)


def split_lines(text: str) -> list[str]:
    """The lines of a table, each with its end; what follows the last end is left out."""
    return [f"{line}\n" for line in text.split("\n")[:-1]]


def append_sums(path: Path, lines: Sequence[str]) -> None:
    """Add the checksums of lines that are about to be written to the table; raises OSError."""
    with open_file(make_sums_path(path), "a+b") as file:
        end = file.seek(0, os.SEEK_END)
        if end and os.pread(file.fileno(), 1, end - 1) != b"\n":  # torn by a crash or a full disk
            file.write(b"\n")
        file.write(format_sums(lines).encode())


def read_sums(path: Path) -> Sums | None:
    """The checksums by step, and by `header`; None where there is no such file. Raises OSError."""
    try:
        with open_file(make_sums_path(path), "rb") as file:
            text = file.read().decode("ascii", errors="replace")
    except FileNotFoundError:
        return None
    sums: Sums = {}
    for line in text.splitlines():
        found = _LINE.fullmatch(line)
        if found is not None:
            sums.setdefault(found[2], set()).add(found[1])
    return sums


def _name_line(line: str) -> str:
    """The step of a row, or `header`."""
    first = line.partition(",")[0].rstrip("\n")
    return first if first.isdigit() else HEADER
