"""How far a long computation is: a bar on a terminal, a few plain lines elsewhere. No torch."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from aptlab.shown import print_shown, show_line, show_message

Note = str | Callable[[], str | None]


def format_duration(seconds: float) -> str:
    """A time for people, in minutes and seconds.

    >>> [format_duration(seconds) for seconds in (63, 3700)]
    ['1:03', '1:01:40']
    """
    minutes, rest = divmod(round(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class ProgressBar:
    """Progress of counted things: `step 40/100  loss 3.210  ETA 1:03`.

    what     the word in front of the count
    total    how many things there are; it may be set later
    done     how many an earlier process has finished
    lines    about so many plain lines where there is no terminal; None: one for every thing
    pause    seconds without a plain line, so that a short computation prints none
    refresh  seconds between two updates of a bar

    Use it in a `with`, or call `start` and `stop`. Nothing is shown before `start`.
    """

    def __init__(
        self,
        what: str,
        *,
        total: int | None,
        done: int = 0,
        lines: int | None = 10,
        pause: float = 0.0,
        refresh: float = 0.2,
    ) -> None:
        self.what, self.total, self.done = what, total, done
        self.lines, self.pause, self.interval = lines, pause, refresh
        self._first = done
        self._printed = done if lines is not None else done - 1  # with a line for every thing, number 0 has one too
        self._begun = self._shown = time.monotonic()
        self._bar: Any = None
        self._task: Any = None

    def start(self) -> ProgressBar:
        """Begin to count time, and show the bar where stdout is a terminal."""
        self._begun = self._shown = time.monotonic()
        if sys.stdout.isatty():
            # Imported here: rich costs a tenth of a second, which a run without a terminal need not pay.
            from rich.progress import BarColumn, Progress, TextColumn

            words = [TextColumn(part, markup=False) for part in ("{task.description}", "{task.fields[text]}")]
            columns = (words[0], BarColumn(bar_width=None), words[1])
            self._bar = Progress(*columns, refresh_per_second=5, expand=True)
            self._task = self._bar.add_task(show_line(self.what), total=self.total, completed=self.done, text="")
            self._bar.start()
        return self

    def stop(self) -> None:
        """Take the bar away; harmless when repeated."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def __enter__(self) -> ProgressBar:
        return self.start()

    def __exit__(self, *problem: object) -> None:
        self.stop()

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count some more things as finished; `note` says what they are."""
        self.update(self.done + count, note)

    @property
    def on_terminal(self) -> bool:
        """Whether a bar is shown, and no plain lines."""
        return self._bar is not None

    def update(self, done: int, note: Note = "") -> None:
        """Set the number of finished things; `note` stands behind it.

        A function is asked for the note only where it is shown; its None puts a plain line off to the next update.
        """
        self.done = done
        if self._bar is not None:
            self.refresh(note)
        elif self._is_due(now := time.monotonic()) and (text := read_note(note)) is not None:
            self._shown, self._printed = now, done
            print_shown(f"{self.what} {self._describe(now, text)}", flush=True)

    def refresh(self, note: Note) -> None:
        """Another note on the bar; no plain line where there is none."""
        now = time.monotonic()
        if self._bar is not None and (now - self._shown > self.interval or self.done == self.total):
            self._shown = now
            text = show_line(self._describe(now, read_note(note) or ""))
            self._bar.update(self._task, completed=self.done, total=self.total, text=text)

    def print_line(self, line: str) -> None:
        """Print a whole line, above the bar where there is one."""
        if self._bar is not None:
            self._bar.console.print(show_message(line), highlight=False, markup=False, emoji=False)
        else:
            print_shown(line, flush=True)

    def _is_due(self, now: float) -> bool:
        """Whether a plain line is due: a mark was passed since the last one, and the pause is over."""
        if self.done <= self._printed or now - self._shown < self.pause:
            return False
        every = max(1, (self.total or 0) // self.lines) if self.lines is not None else 1
        return self.done // every > self._printed // every or self.done == self.total

    def _describe(self, now: float, note: str) -> str:
        parts = [f"{self.done:,}" if self.total is None else f"{self.done:,}/{self.total:,}", note]
        finished = self.done - self._first
        if finished > 0 and self.total is not None:
            parts.append(f"ETA {format_duration((now - self._begun) / finished * (self.total - self.done))}")
        return "  ".join(part for part in parts if part)


def read_note(note: Note) -> str | None:
    """The text of a note, which may be a function that knows it."""
    return note if isinstance(note, str) else note()
