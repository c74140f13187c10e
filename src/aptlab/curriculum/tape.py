"""The rows of a run in the order in which they are trained on, written ahead of training, piece by piece."""

from __future__ import annotations

from typing import Any

import numpy as np

from aptlab.data.rows.order import permute_indices

KEPT = 65_536  # rows behind the run that stay readable: a resume with other global batches rounds down
NUMBERS = 1 << 40  # of draws for each purpose
WHOLE = 1 << 32


class Tape:
    """Row numbers by position; position p counts rows on all ranks together, from the run's first.

    It grows at its end, and its end may be cut off and written anew while nothing of that was trained on.
    """

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.pieces: list[np.ndarray] = []
        self.end = 0

    @property
    def begun(self) -> bool:
        """Whether anything was ever written."""
        return bool(self.starts)

    def begin(self, position: int) -> None:
        """Where the first piece will stand."""
        assert not self.begun
        self.end = position

    def append(self, rows: np.ndarray) -> None:
        """Write the next rows, int [n]."""
        if len(rows):
            self.starts.append(self.end)
            self.pieces.append(np.asarray(rows, dtype=np.int64))
            self.end += len(rows)

    def cut(self, position: int) -> None:
        """Take off what stands at `position` and later."""
        while self.starts and self.starts[-1] >= position and len(self.starts) > 1:
            self.starts.pop()
            self.pieces.pop()
        if self.starts:
            self.pieces[-1] = self.pieces[-1][: max(0, position - self.starts[-1])]
            self.end = self.starts[-1] + len(self.pieces[-1])

    def forget(self, position: int) -> None:
        """Drop pieces that training has left behind."""
        while len(self.starts) > 1 and self.starts[1] + KEPT <= position:
            self.starts.pop(0)
            self.pieces.pop(0)

    def read(self, positions: np.ndarray) -> np.ndarray:
        """Row numbers at `positions` [B], int64 [B]; all of them must be written."""
        positions = np.asarray(positions, dtype=np.int64)
        first, last = int(positions.min()), int(positions.max())
        inside = self.begun and self.starts[0] <= first and last < self.end
        assert inside, f"positions {first} to {last} asked of {self.starts[:1]} to {self.end}"
        starts = np.array(self.starts, dtype=np.int64)
        places = np.searchsorted(starts, positions, side="right") - 1
        found = np.empty(len(positions), dtype=np.int64)
        for place in np.unique(places).tolist():
            mine = places == place
            found[mine] = self.pieces[place][positions[mine] - starts[place]]
        return found

    def state(self) -> dict[str, Any]:
        """Plain values and arrays."""
        return {"starts": list(self.starts), "pieces": [piece.astype(np.int32) for piece in self.pieces]}

    def load(self, state: dict[str, Any]) -> None:
        """Take `state` back."""
        self.starts = [int(start) for start in state["starts"]]
        self.pieces = [np.asarray(piece, dtype=np.int64) for piece in state["pieces"]]
        self.end = self.starts[-1] + len(self.pieces[-1]) if self.starts else 0


def shuffle_numbers(count: int, *, seed: int, purpose: int, number: int, take: int | None = None) -> np.ndarray:
    """The first `take` of the numbers below `count` in an order that seed, purpose and number decide; int64."""
    take = count if take is None else min(take, count)
    if take == 0:
        return np.zeros(0, dtype=np.int64)
    return permute_indices(np.arange(take), count=count, seed=seed, epoch=purpose * NUMBERS + number)


def draw_uniform(*, seed: int, purpose: int, number: int) -> float:
    """A number in [0, 1) that seed, purpose and number decide."""
    return float(shuffle_numbers(WHOLE, seed=seed, purpose=purpose, number=number, take=1)[0]) / WHOLE
