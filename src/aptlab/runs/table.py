"""metrics.csv: one row per step, one column per quantity, empty where not measured; its rows' sums are beside it."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, field
from pathlib import Path

from aptlab.runs.atomic import write_text
from aptlab.runs.files import open_file
from aptlab.runs.table_sums import HEADER, Sums, format_sums, make_sums_path, read_sums, split_lines, sum_line

FIRST = ("step", "epoch")
OWN = "does not have its checksum (if you changed it yourself, delete metrics.csv.sum)"


@dataclass
class MetricsTable:
    """Columns in file order and rows of text cells, sorted by step; `problems` says what was left out.

    sealed  whether the rows were compared with their checksums; an earlier version wrote none
    partial  whether whole lines were left out, which the file still has
    """

    columns: list[str] = field(default_factory=lambda: list(FIRST))
    rows: dict[int, dict[str, str]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    sealed: bool = False
    partial: bool = False

    @classmethod
    def read(cls, path: str | Path) -> MetricsTable:
        """Read a file, leaving out a torn last line and damaged rows; raises OSError, or UnsafeFileError."""
        with open_file(path, "rb") as file:
            text = file.read().decode("utf-8", errors="replace")
        sums = read_sums(Path(path))
        table = cls(sealed=sums is not None)
        whole, newline, torn = text.rpartition("\n")
        if torn:
            step = torn.partition(",")[0] if "," in torn else ""
            name = f"step {int(step)}, the last line," if is_step(step) else "the last line"
            table.problems.append(f"{name} was cut off and is left out")
        lines = split_lines(whole + newline)
        if lines:
            table._read_lines(lines, sums)
        if sums is not None:
            table._find_missing_rows(sums)
        table.rows = dict(sorted(table.rows.items()))
        return table

    def _read_lines(self, lines: list[str], sums: Sums | None) -> None:
        """Take the header and every row that is whole."""
        header = _split_cells(lines[0]) or []
        if header[:1] != ["step"] or len(set(header)) != len(header):
            self._leave_out("the first line is no header, so no row can be read")
            return
        if sums is not None and sum_line(lines[0]) not in sums.get(HEADER, ()):
            self._leave_out(f"the first line {OWN}, so no row can be read")
            return
        self.columns = header
        for number, line in enumerate(lines[1:], start=2):
            self._add(number, line, sums)

    def _add(self, number: int, line: str, sums: Sums | None) -> None:
        cells = _split_cells(line)
        step = cells[0] if cells else ""
        name = f"step {int(step)} (line {number})" if is_step(step) else f"line {number}"
        if cells is None or len(cells) != len(self.columns) or not is_step(step):
            self._leave_out(f"{name} is damaged and left out")
            return
        if not all(is_number(cell) for cell in cells):
            self._leave_out(f"{name} holds text that is no number and is left out")
            return
        if sums is not None and sum_line(line) not in sums.get(step, ()):
            self._leave_out(f"{name} {OWN} and is left out")
            return
        filled = {name: cell for name, cell in zip(self.columns, cells) if cell}
        self.rows.setdefault(int(step), {}).update(filled)

    def _leave_out(self, problem: str) -> None:
        self.partial = True
        self.problems.append(problem)

    def _find_missing_rows(self, sums: Sums) -> None:
        """Say which steps were written and are not there, unless that was said of their rows."""
        missing = sorted(int(step) for step in sums if step != HEADER and int(step) not in self.rows)
        if missing and not self.problems:
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            self.problems.append(f"rows are missing: step {', '.join(map(str, missing[:3]))}{more}")

    def write(self, path: str | Path) -> None:
        """Replace the file and its checksums, so that a process that dies meanwhile leaves no row without its sum.

        Raises AptlabError naming the file.
        """
        text, sums = self.text(), make_sums_path(path)
        new = format_sums(split_lines(text))
        before = _read_old_sums(sums) if Path(path).exists() else ""
        if before and not before.endswith("\n"):
            before += "\n"
        write_text(sums, before + new)
        write_text(path, text)
        if before:
            write_text(sums, new)

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


def _split_cells(line: str) -> list[str] | None:
    """The cells of one line, None where it is none."""
    try:
        return next(csv.reader([line.rstrip("\n")]), [])
    except csv.Error:
        return None


def format_csv_line(cells: list[str]) -> str:
    """One line of the file."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(cells)
    return out.getvalue()


def is_step(cell: str) -> bool:
    """Whether a cell is the number of a step."""
    return cell.isascii() and cell.isdigit()


def is_number(cell: str) -> bool:
    """Whether a cell is empty or a number, `nan` and `inf` included."""
    if not cell:
        return True
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell


def _read_old_sums(path: Path) -> str:
    """The text of the checksums that are there, "" for none."""
    try:
        with open_file(path, "rb") as file:
            return file.read().decode("ascii", errors="replace")
    except FileNotFoundError:
        return ""
