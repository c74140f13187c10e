"""Micro-batches in an order that is given from outside, as a curriculum gives one.

Legend: B rows per micro-batch, W ranks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from aptlab.data.rows.base import BatchPlan, RowTable
from aptlab.data.rows.epochs import WholeTableRows
from aptlab.data.rows.order import RowOrder

if TYPE_CHECKING:
    from aptlab.data.rows.base import Arrays


class OrderedRows(WholeTableRows):
    """Rows of `table` as `order` says: micro-batch n on rank r of W has positions [(n*W + r)*B, (n*W + r + 1)*B).

    An epoch is as many rows as the table has. Raises ConfigError when W*B > N.
    """

    def __init__(
        self, table: RowTable, plan: BatchPlan, order: RowOrder, *, settings: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(table, plan, settings=settings)
        self.order = order

    def batch(self, number: int) -> Arrays:
        first = (number * self.plan.world + self.plan.rank) * self.plan.batch
        return self.table.rows(self.order.choose_rows(first + np.arange(self.plan.batch, dtype=np.int64)))

    def state(self) -> dict[str, Any]:
        return super().state() | {"order": self.order.name}

    def convert_number(self, number: int, *, global_batch: int) -> int:
        """The same position, rounded down to a global batch."""
        return number * global_batch // self.plan.global_batch
