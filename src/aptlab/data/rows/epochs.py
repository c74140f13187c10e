"""Micro-batches over a table of rows: shuffled epochs to train on, a fixed choice to validate on.

Legend: B rows per micro-batch, W ranks, N rows of the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from aptlab.data.rows.base import BatchPlan, Rows, RowTable, describe_few_rows
from aptlab.data.rows.order import permute_indices
from aptlab.errors import ConfigError
from aptlab.objectives import IGNORE

if TYPE_CHECKING:
    from aptlab.data.rows.base import Arrays

BLOCK = 64


class WholeTableRows(Rows):
    """Rows of one table, an epoch of which is as many as the table has. Raises ConfigError when W*B > N."""

    def __init__(self, table: RowTable, plan: BatchPlan, *, settings: Mapping[str, Any] | None = None) -> None:
        if plan.global_batch > len(table):
            raise ConfigError(describe_few_rows(len(table), context=table.context, plan=plan))
        self.table, self.plan, self._settings = table, plan, dict(settings or {})

    def __len__(self) -> int:
        return len(self.table)

    @property
    def batches_per_epoch(self) -> int:
        return len(self.table) // self.plan.global_batch

    def state(self) -> dict[str, Any]:
        return describe_plan(self.plan, self.table.context) | self._settings


class EpochRows(WholeTableRows):
    """Every row of `table` once an epoch, in a new order each time.

    Micro-batch n on rank r of W: epoch, i = divmod(n, batches_per_epoch), then rows
    order(epoch)[(i*W + r)*B : (i*W + r + 1)*B]. So ranks share out one global batch of W*B rows, and up to W*B - 1
    rows, others in each epoch, are left out of an epoch. Raises ConfigError when W*B > N.
    """

    def __init__(self, table: RowTable, plan: BatchPlan, *, settings: Mapping[str, Any] | None = None) -> None:
        super().__init__(table, plan, settings=settings)
        self._block: tuple[int, int, np.ndarray] | None = None  # epoch, first batch of it, ids [BLOCK or less, B]

    def batch(self, number: int) -> Arrays:
        return self.table.rows(self.row_ids(number))

    def row_ids(self, number: int) -> np.ndarray:
        """Row numbers [B] of micro-batch `number` on this rank.

        The order of BLOCK batches is found at once, which takes three times as long as that of a single one; the last
        block is kept, since batches are mostly asked for one after the other.
        """
        epoch, i = divmod(number, self.batches_per_epoch)
        begin = i - i % BLOCK
        block = self._block
        if block is None or block[:2] != (epoch, begin):
            count = min(BLOCK, self.batches_per_epoch - begin)
            first = ((begin + np.arange(count)) * self.plan.world + self.plan.rank) * self.plan.batch
            slots = first[:, None] + np.arange(self.plan.batch)
            ids = permute_indices(slots, count=len(self.table), seed=self.plan.seed, epoch=epoch)
            self._block = block = (epoch, begin, ids)
        return block[2][i - begin]

    def convert_number(self, number: int, *, global_batch: int) -> int:
        """The same epoch, and the same row of it, rounded down to a global batch."""
        epoch, i = divmod(number, max(1, len(self.table) // global_batch))
        return epoch * self.batches_per_epoch + i * global_batch // self.plan.global_batch


class ValidationRows:
    """Rows of `table` in a fixed order, the same ones for every number of ranks; finite.

    With `limit` rows or fewer asked for, they are spread evenly over the table. Rank r of W takes every W-th row.
    All batches have B rows, and all ranks the same number of batches: missing rows repeat another row with
    ids -1 and targets -100. A batch may consist of such rows only (W > 1), so sum losses and tokens over batches
    rather than averaging means.
    """

    def __init__(self, table: RowTable, plan: BatchPlan, *, limit: int | None = None) -> None:
        count = len(table) if limit is None else min(limit, len(table))
        self._chosen = np.arange(count, dtype=np.int64) * len(table) // count
        self.table, self.plan = table, plan

    @property
    def tokens(self) -> int:
        """Targets on all ranks together."""
        return len(self._chosen) * self.table.context

    def __len__(self) -> int:
        """Batches of each rank."""
        return -(-len(self._chosen) // self.plan.global_batch)

    def batch(self, number: int) -> Arrays:
        """Batch `number` of this rank, `number` in [0, len)."""
        mine = self._chosen[self.plan.rank :: self.plan.world]
        ids = mine[number * self.plan.batch : (number + 1) * self.plan.batch]
        missing = self.plan.batch - len(ids)
        arrays = self.table.rows(np.concatenate([ids, np.zeros(missing, dtype=np.int64)]))
        if missing:
            arrays["ids"][-missing:] = -1
            arrays["targets"][-missing:] = IGNORE
        return arrays


def describe_plan(plan: BatchPlan, context: int) -> dict[str, Any]:
    """The part of a state that all kinds of rows have."""
    return {"global_batch": plan.global_batch, "context": context, "seed": plan.seed}
