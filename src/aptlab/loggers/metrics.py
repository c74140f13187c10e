"""metrics.csv, written so that a crash, a full disk or a resume never spoils it."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import shutil
import time
from collections.abc import Mapping
from numbers import Integral
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from aptlab.errors import AptlabError
from aptlab.loggers.base import RunLogger
from aptlab.runs.files import open_file, refuse_link, require_own_file
from aptlab.runs.table import FIRST, MetricsTable, format_csv_line
from aptlab.runs.table_sums import append_sums, make_sums_path

log = logging.getLogger("aptlab.loggers")

FLUSH_SECONDS = 1.0


class CSVMetrics(RunLogger):
    """One row per step, one column per quantity; what is logged at the same step joins its row.

    Rows reach the file at most a second late. A new quantity rewrites the file with a longer header
    (atomically); a line torn by a crash is dropped when the file is opened again, and so is one that does not have its
    checksum in metrics.csv.sum, once the file was copied to metrics-damaged.csv. A disk that is full
    costs one warning, and the rows are written when there is room again. Rank zero only.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        super().__init__()
        self._folder = Path(folder)
        self._path = self._folder / "metrics.csv"
        self._columns: list[str] = list(FIRST)
        self._step: int | None = None
        self._row: dict[str, str] = {}
        self._waiting: list[str] = []
        self._summed = ""  # the last row as its checksum was written
        self._end = 0
        self._file: Any = None
        self._flushed = -math.inf
        self._warned: set[str] = set()

    @property
    def name(self) -> str:
        """The folder's name."""
        return self._folder.name

    @property
    def version(self) -> str:
        """Empty: a folder holds one run."""
        return ""

    @property
    def save_dir(self) -> str:
        """The run folder."""
        return str(self._folder)

    @property
    def log_dir(self) -> str:
        """The run folder."""
        return str(self._folder)

    @rank_zero_only
    def begin(self) -> None:
        """Make the table now: a disk that is full from the first step on finds a file, and rows wait for it in memory.

        Raises AptlabError where none can be made.
        """
        if not refuse_link(self._path).exists():
            self._open()

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Add values to the row of `step` (by default the newest one)."""
        self._open()
        step = self._step or 0 if step is None else int(step)
        cells = {name: text for name, value in metrics.items() if (text := self._cell(name, value))}
        new = [name for name in cells if name not in self._columns and name != "step"]
        late = self._step is not None and step < self._step
        rebuilt = bool(new or late) and self._rebuild(new, step, cells)
        if not rebuilt and not late:
            if step != self._step:
                self._next_row(step)
            self._row.update(cells)
        if time.monotonic() - self._flushed >= FLUSH_SECONDS:
            self.save()

    @rank_zero_only
    def resume(self, step: int) -> None:
        """Drop the rows after `step`, before training goes on from there."""
        self._close()
        if not refuse_link(self._path).exists():
            return
        table = self._repaired()
        rows = {number: row for number, row in table.rows.items() if number <= step}
        if len(rows) < len(table.rows):
            table.rows = rows
            table.write(self._path)

    @rank_zero_only
    def save(self) -> None:
        """Bring everything logged so far into the file."""
        self._flush()

    def _flush(self) -> bool:
        """Whether the file now holds everything."""
        if self._file is None:
            return True
        self._flushed = time.monotonic()
        done = "".join(self._waiting).encode()
        line = self._line() if self._step is not None else ""
        last = line.encode()
        try:
            if self._waiting or line != self._summed:  # the sums first: see aptlab.runs.table_sums
                append_sums(self._path, [*self._waiting, *([line] if line else [])])
            self._file.seek(self._end)
            self._file.write(done + last)
            self._file.truncate()
            self._file.flush()
        except OSError as error:
            self._warn("full", f"cannot write {self._path}: {error.strerror}; metrics wait in memory")
            return False
        self._end += len(done)
        self._waiting, self._summed = [], line
        return True

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write and sync; more may be logged afterwards."""
        self.save()
        if self._file is not None:
            try:
                with open_file(make_sums_path(self._path), "rb") as sums:
                    os.fsync(sums.fileno())
                os.fsync(self._file.fileno())
            except OSError as error:
                self._warn("sync", f"cannot sync {self._path}: {error.strerror}")

    @rank_zero_only
    def close(self, exit_code: int = 0) -> None:
        """Write and sync, whatever the exit code. Rows that a full disk still does not take are lost, and named."""
        self.finalize("closed")
        if self._file is not None and not self._flush():
            lost = len(self._waiting) + (self._step is not None)
            log.warning("%s: the last %s rows, up to step %s, are lost", self._path, f"{lost:,}", self._step)
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None

    def _open(self) -> None:
        """Open the file, repair it if needed, and continue its last row."""
        if self._file is not None:
            return
        table = self._repaired() if refuse_link(self._path).exists() else MetricsTable()
        if not self._path.exists() or not self._path.stat().st_size or not table.sealed:
            table.write(self._path)
        self._load(table)

    def _repaired(self) -> MetricsTable:
        try:
            table = MetricsTable.read(self._path)
            if table.problems:
                aside = self._path.with_name("metrics-damaged.csv")
                kept = f"; the file as it was is {aside.name} now" if table.partial else ""
                log.warning("%s repaired: %s%s", self._path, "; ".join(table.problems[:3]), kept)
                if table.partial:
                    shutil.copyfile(refuse_link(self._path), require_own_file(aside))
                table.write(self._path)
        except OSError as error:
            raise AptlabError(f"cannot read {self._path}: {error.strerror}; choose another run_dir") from error
        return table

    def _load(self, table: MetricsTable) -> None:
        """Take over a table that the file holds; its last row stays open for more values."""
        self._columns = list(table.columns)
        self._step = max(table.rows, default=None)
        self._row = dict(table.rows[self._step]) if self._step is not None else {}
        self._row.pop("step", None)
        self._waiting = []
        try:
            self._file = open_file(self._path, "r+b")
        except OSError as error:
            raise AptlabError(f"cannot write {self._path}: {error.strerror}; choose another run_dir") from error
        size = self._path.stat().st_size
        self._end = size - (len(self._line().encode()) if self._step is not None else 0)

    def _next_row(self, step: int) -> None:
        if self._step is not None:
            self._waiting.append(self._line())
        self._step, self._row = step, {}

    def _rebuild(self, new: list[str], step: int, cells: dict[str, str]) -> bool:
        """Rewrite the file for new columns or for a value that comes late; False if it cannot be."""
        if not self._flush():
            return False
        try:
            table = MetricsTable.read(self._path)
            if table.problems:
                self._warn("damaged", f"{self._path}: {'; '.join(table.problems[:3])}")
            table.columns += [name for name in new if name not in table.columns]
            table.rows.setdefault(step, {"step": str(step)}).update(cells)
            table.rows = dict(sorted(table.rows.items()))
            table.write(self._path)
        except (AptlabError, OSError) as error:
            self._warn("rewrite", f"{error}; {', '.join(new) or 'late values'} not logged until then")
            return False
        self._file.close()
        self._load(table)
        return True

    def _line(self) -> str:
        row = {**self._row, "step": str(self._step)}
        return format_csv_line([row.get(name, "") for name in self._columns])

    def _close(self) -> None:
        if self._file is not None:
            self._flush()
            self._file.close()
            self._file = None
        self._step, self._row = None, {}

    def _cell(self, name: str, value: Any) -> str:
        """A number as text that reads back to the same number; empty (with one warning) if it is none."""
        try:
            number = value.item() if isinstance(value, torch.Tensor) else value
            return str(int(number)) if isinstance(number, Integral) else repr(float(number))
        except (TypeError, ValueError, RuntimeError):
            self._warn(f"cell {name}", f"{name} is no single number ({type(value).__name__}); not logged")
            return ""

    def _warn(self, what: str, message: str) -> None:
        if what not in self._warned:
            self._warned.add(what)
            log.warning("%s", message)
