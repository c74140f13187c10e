"""How far a long evaluation is: a bar on a terminal, a few plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any

from aptlab.callbacks.progress import format_duration

LINES = 10
QUIET = 10.0  # seconds without a line where there is no terminal


class ProgressBar:
    """Counts finished things of `total`; those of an earlier run are `done` from the start."""

    def __init__(self, what: str, *, total: int, done: int = 0) -> None:
        self.what, self.total, self.done, self._first = what, total, done, done
        self._begun = self._told = time.monotonic()
        self._lines = 0
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> ProgressBar:
        if sys.stderr.isatty() and self.done < self.total:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn

            columns = (
                TextColumn("{task.description}"),
                BarColumn(bar_width=None),
                TextColumn("{task.fields[numbers]}"),
            )
            self._bar = Progress(*columns, console=Console(stderr=True), expand=True, transient=True)
            self._task = self._bar.add_task(self.what, total=self.total, completed=self.done, numbers="")
            self._bar.start()
        return self

    def __exit__(self, *problem: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def step(self, count: int = 1, note: str = "") -> None:
        """Count some more as finished; `note` says what they belong to."""
        self.done += count
        now = time.monotonic()
        left = (now - self._begun) / max(self.done - self._first, 1) * (self.total - self.done)
        text = f"{self.done:,}/{self.total:,}  {note}  ETA {format_duration(left)}"
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, numbers=text)
        elif now - self._told > QUIET and self.done / self.total > self._lines / LINES:
            self._told, self._lines = now, int(LINES * self.done / self.total) + 1
            print(f"{self.what}  {text}", flush=True)
