"""How far a search is: its progress bar, and a picture that follows the curve."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from aptlab.runs.progress import ProgressBar
from aptlab.search.engine import SearchState
from aptlab.search.evaluation_cache import CurvePoint

SHOWN = 8  # factors in a line


class SearchProgress:
    """Progress in iterations, a line for each where there is no terminal.

    It hears of every job and every iteration; `draw` is called with the curve at most every `pause` seconds.
    """

    def __init__(self, *, draw: Callable[[Sequence[CurvePoint]], Any], pause: float = 2.0) -> None:
        self.draw, self.pause = draw, pause
        self.points: list[CurvePoint] = []
        self._bar = ProgressBar("iteration", total=None, lines=None)
        self._drawn = 0.0
        self._tokens = 0

    def __enter__(self) -> SearchProgress:
        self._bar.start()
        return self

    def __exit__(self, *problem: object) -> None:
        self._bar.stop()

    def job(self, tokens: int) -> None:
        """A job is finished."""
        self._tokens += tokens
        self._bar.refresh(self._describe())

    def iteration(self, state: SearchState) -> None:
        """An iteration is finished; number 0 is the first population."""
        if not self.points or state.best != self.points[-1]:
            self.points.append(state.best)
        self._tokens = state.tokens
        self._bar.total = state.iterations
        self._bar.update(state.iteration, self._describe())
        if time.monotonic() - self._drawn > self.pause:
            self.draw([*self.points, CurvePoint(state.tokens, state.best.score, state.best.factors)])
            self._drawn = time.monotonic()

    def _describe(self) -> str:
        spent = f"{self._tokens:,} tokens"
        if not self.points:
            return spent
        best = self.points[-1]
        return f"best {best.score:.4f}  {spent}  factors {format_factors(best.factors)}"


def format_factors(factors: Sequence[float]) -> str:
    """Some of the factors, the first and the last among them.

    >>> format_factors([1.0, 2.0, 3.5])
    '1.00 2.00 3.50'
    """
    last = len(factors) - 1
    picked = sorted({round(i * last / (SHOWN - 1)) for i in range(SHOWN)}) if last else [0]
    return " ".join(f"{factors[i]:.2f}" for i in picked)
