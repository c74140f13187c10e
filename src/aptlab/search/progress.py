"""How far a search is: a bar on a terminal, a line per iteration elsewhere, and a picture that follows."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from aptlab.search.engine import SearchState
from aptlab.search.evaluation_cache import CurvePoint

SHOWN = 8  # factors in a line


class SearchProgress:
    """Told of every job and every iteration; `draw` is called with the curve at most every `pause` seconds."""

    def __init__(self, *, draw: Callable[[Sequence[CurvePoint]], Any], pause: float = 2.0) -> None:
        self.draw, self.pause = draw, pause
        self.points: list[CurvePoint] = []
        self._drawn = 0.0
        self._tokens = 0
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> SearchProgress:
        if sys.stdout.isatty():
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            columns = (TextColumn("{task.description}"), BarColumn(bar_width=None), TimeElapsedColumn())
            self._bar = Progress(*columns, TextColumn("{task.fields[numbers]}"), expand=True, refresh_per_second=4)
            self._task = self._bar.add_task("search", total=None, numbers="")
            self._bar.start()
        return self

    def __exit__(self, *ignored: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def job(self, tokens: int) -> None:
        """A job is finished."""
        self._tokens += tokens
        if self._bar is not None:
            self._bar.update(self._task, numbers=f"{self._tokens:,} tokens")

    def iteration(self, state: SearchState) -> None:
        """An iteration is finished."""
        if not self.points or state.best != self.points[-1]:
            self.points.append(state.best)
        line = (
            f"iteration {state.iteration}/{state.iterations}  best {state.best.score:.4f}  "
            f"{state.tokens:,} tokens  factors {format_factors(state.best.factors)}"
        )
        if self._bar is not None:
            self._bar.update(self._task, description=line, completed=state.iteration, total=state.iterations)
        else:
            print(line, flush=True)
        if time.monotonic() - self._drawn > self.pause:
            self.draw([*self.points, CurvePoint(state.tokens, state.best.score, state.best.factors)])
            self._drawn = time.monotonic()


def format_factors(factors: Sequence[float]) -> str:
    """Some of the factors, the first and the last among them.

    >>> shown([1.0, 2.0, 3.5])
    '1.00 2.00 3.50'
    """
    last = len(factors) - 1
    picked = sorted({round(i * last / (SHOWN - 1)) for i in range(SHOWN)}) if last else [0]
    return " ".join(f"{factors[i]:.2f}" for i in picked)
