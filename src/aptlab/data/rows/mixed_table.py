"""Tables and order of mixed rows; what they are is said in `aptlab.data.rows.mixed`.

Legend: B rows per micro-batch, T tokens per row (the long context), L the trained length, W ranks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from aptlab.data.rows.base import BatchPlan, Rows
from aptlab.data.rows.epochs import describe_plan
from aptlab.data.rows.order import permute_indices
from aptlab.data.rows.packed_table import (
    PackedTable,
    find_inner_segments,
    gather_rows,
    locate_documents,
    shift_targets,
)
from aptlab.data.rows.shares import CYCLE, KINDS

if TYPE_CHECKING:
    from aptlab.data.rows.base import Arrays
    from aptlab.data.store.pieces import CheckedTokens


class MixedTable:
    """Rows of three kinds over the stream `tokens` [N] with document starts `offsets` [D + 1].

    Raises DataError when no row fits.
    """

    def __init__(
        self, tokens: np.ndarray | CheckedTokens, offsets: np.ndarray, context: int, original_len: int
    ) -> None:
        self.tokens, self.offsets, self.context = tokens, offsets, context
        everywhere = np.arange(len(PackedTable(tokens, offsets, context)), dtype=np.int64) * context
        inside = find_inner_segments(offsets, context)
        self.pieces = cut_documents(offsets, original_len)
        self.starts = {"short": everywhere, "packed": everywhere, "long": inside if len(inside) else everywhere}

    def rows(self, kinds: np.ndarray, numbers: np.ndarray) -> Arrays:
        """Rows `numbers` [B] of `kinds` [B]: tokens, targets, positions and segments [B, T], kinds and ids [B]."""
        starts = np.array([self.starts[KINDS[k]][n] for k, n in zip(kinds, numbers, strict=True)], dtype=np.int64)
        batch = shift_targets(gather_rows(self.tokens, starts, self.context + 1))
        positions = np.tile(np.arange(self.context, dtype=np.int64), (len(starts), 1))
        segments = np.ones_like(positions)
        for kind, offsets in ((0, self.pieces), (1, self.offsets)):
            mine = np.flatnonzero(kinds == kind)
            if len(mine):
                positions[mine], segments[mine] = locate_documents(offsets, starts[mine], self.context)
        return {**batch, "positions": positions, "segments": segments, "kinds": kinds.astype(np.int64), "ids": starts}


def cut_documents(offsets: np.ndarray, longest: int) -> np.ndarray:
    """Document starts with more of them, so that no piece is longer than `longest`."""
    sizes = np.diff(offsets)
    counts = -(-sizes // longest)
    first = np.repeat(np.cumsum(counts) - counts, counts)
    within = (np.arange(counts.sum()) - first) * longest
    return np.append(np.repeat(offsets[:-1], counts) + within, offsets[-1])


class MixedRows(Rows):
    """Rows of three kinds with exact shares in every CYCLE rows.

    Row n of all ranks together is row n mod CYCLE of cycle n // CYCLE, shuffled within the cycle; the k-th row of a
    kind is the k-th of that kind's own shuffled epochs. An epoch is as many rows as the stream has.
    """

    def __init__(
        self, table: MixedTable, plan: BatchPlan, *, counts: Sequence[int], settings: Mapping[str, Any]
    ) -> None:
        self.table, self.plan = table, plan
        self._counts, self._settings = np.array(counts), settings
        self._edges = np.cumsum(self._counts)

    def __len__(self) -> int:
        return len(self.table.starts["packed"])

    @property
    def batches_per_epoch(self) -> int:
        """Micro-batches of each rank that hold as many tokens as the text."""
        return max(1, len(self) // self.plan.global_batch)

    def batch(self, number: int) -> Arrays:
        """Micro-batch `number`: tokens, targets, positions and segments [B, T], kinds and ids [B], all int64."""
        return self.table.rows(*self.choose_rows(number))

    def choose_rows(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Kinds [B] and row numbers [B] of micro-batch `number` on this rank."""
        first = (number * self.plan.world + self.plan.rank) * self.plan.batch
        cycles, slots = np.divmod(first + np.arange(self.plan.batch), CYCLE)
        tickets = self._permute(slots, cycles, count=CYCLE, seed=self.plan.seed)
        kinds = np.searchsorted(self._edges, tickets, side="right")
        numbers = np.empty(self.plan.batch, dtype=np.int64)
        for kind in np.unique(kinds).tolist():
            mine = np.flatnonzero(kinds == kind)
            within = tickets[mine] - (self._edges[kind] - self._counts[kind])
            total = len(self.table.starts[KINDS[kind]])
            epochs, indices = np.divmod(cycles[mine] * self._counts[kind] + within, total)
            numbers[mine] = self._permute(indices, epochs, count=total, seed=self.plan.seed + 1 + kind)
        return kinds, numbers

    @staticmethod
    def _permute(indices: np.ndarray, epochs: np.ndarray, *, count: int, seed: int) -> np.ndarray:
        """Each index in the order of its own epoch."""
        found = np.empty_like(indices)
        for epoch in np.unique(epochs).tolist():
            mine = np.flatnonzero(epochs == epoch)
            found[mine] = permute_indices(indices[mine], count=count, seed=seed, epoch=epoch)
        return found

    def state(self) -> dict[str, Any]:
        return describe_plan(self.plan, self.table.context) | dict(self._settings)

    def convert_number(self, number: int, *, global_batch: int) -> int:
        """The same row, counted from the first, rounded down to a global batch."""
        return number * global_batch // self.plan.global_batch
