"""Micro-batches in an order that is given from outside, as a curriculum gives one.

Legend: B rows per micro-batch, W ranks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from aptlab.data.rows.base import BatchPlan, Rows, RowTable, describe_few_rows
from aptlab.data.rows.epochs import describe_plan
from aptlab.data.rows.order import RowOrder
from aptlab.errors import ConfigError

if TYPE_CHECKING:
    from aptlab.data.rows.base import Arrays


class OrderedRows(Rows):
    """Rows of `table` as `order` says: micro-batch n on rank r of W has positions [(n*W + r)*B, (n*W + r + 1)*B).

    An epoch is as many rows as the table has. Raises ConfigError when W*B > N.
    """

    def __init__(
        self, table: RowTable, plan: BatchPlan, order: RowOrder, *, settings: Mapping[str, Any] | None = None
    ) -> None:
        if plan.global_batch > len(table):
            raise ConfigError(describe_few_rows(len(table), context=table.context, plan=plan))
        self.table, self.plan, self.order, self._settings = table, plan, order, dict(settings or {})

    def __len__(self) -> int:
        return len(self.table)

    @property
    def batches_per_epoch(self) -> int:
        return len(self.table) // self.plan.global_batch

    def batch(self, number: int) -> Arrays:
        first = (number * self.plan.world + self.plan.rank) * self.plan.batch
        return self.table.rows(self.order.choose_rows(first + np.arange(self.plan.batch, dtype=np.int64)))

    def state(self) -> dict[str, Any]:
        return describe_plan(self.plan, self.table.context) | self._settings | {"order": self.order.name}

    def convert_number(self, number: int, *, global_batch: int) -> int:
        """The same position, rounded down to a global batch."""
        return number * global_batch // self.plan.global_batch
