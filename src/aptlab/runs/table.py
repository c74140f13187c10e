"""metrics.csv: one row per step, one column per quantity, empty where not measured."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, field
from pathlib import Path

from aptlab.runs.files import open_file

FIRST = ("step", "epoch")


@dataclass
class MetricsTable:
    """Columns in file order and rows of text cells, sorted by step; `problems` says what was left out."""

    columns: list[str] = field(default_factory=lambda: list(FIRST))
    rows: dict[int, dict[str, str]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, path: str | Path) -> MetricsTable:
        """Read a file, leaving out a torn last line and damaged rows; raises OSError, or UnsafeFileError."""
        with open_file(path, "rb") as file:
            text = file.read().decode("utf-8", errors="replace")
        table = cls()
        if not text:
            return table
        whole, newline, torn = text.rpartition("\n")
        if torn:
            table.problems.append("the last line was cut off")
        lines = csv.reader(io.StringIO(whole + newline))
        header = next(lines, [])
        if header[:1] != ["step"] or len(set(header)) != len(header):
            table.problems.append("the first line is no header")
            return table
        table.columns = header
        try:
            for number, cells in enumerate(lines, start=2):
                table._add(number, cells)
        except csv.Error as error:
            table.problems.append(f"unreadable from row {len(table.rows) + 2} on ({error})")
        table.rows = dict(sorted(table.rows.items()))
        return table

    def _add(self, number: int, cells: list[str]) -> None:
        step = cells[0] if cells else ""
        if len(cells) != len(self.columns) or not step.isascii() or not step.isdigit():
            self.problems.append(f"row {number} is damaged")
            return
        if not all(is_number(cell) for cell in cells):
            self.problems.append(f"row {number} holds text that is no number")
            return
        filled = {name: cell for name, cell in zip(self.columns, cells) if cell}
        self.rows.setdefault(int(step), {}).update(filled)

    def text(self) -> str:
        """The file's content."""
        return format_csv_line(self.columns) + "".join(
            format_csv_line([row.get(name, "") for name in self.columns]) for row in self.rows.values()
        )

    def numbers(self) -> dict[str, list[float | None]]:
        """Columns of numbers; None where a quantity was not measured at that step."""
        return {
            name: [float(row[name]) if name in row else None for row in self.rows.values()] for name in self.columns
        }


def format_csv_line(cells: list[str]) -> str:
    """One line of the file."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(cells)
    return out.getvalue()


def is_number(cell: str) -> bool:
    """Whether a cell is empty or a number, `nan` and `inf` included."""
    if not cell:
        return True
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell
