"""Rows of several tasks under one numbering, and their micro-batches, task after task.

Legend: B rows per micro-batch and device, W ranks, K tasks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from aptlab.data.loader import ValLoader
from aptlab.data.rows.base import BatchPlan, Rows, RowTable
from aptlab.data.rows.epochs import EpochRows, describe_plan
from aptlab.data.scenarios import TaskClock

if TYPE_CHECKING:
    from aptlab.data.loader import Batch
    from aptlab.data.rows.base import Arrays
    from aptlab.data.rows.order import RowOrder


class JointTable(RowTable):
    """The rows of all tables behind each other: row i of table k has the number offsets[k] + i."""

    def __init__(self, tables: Sequence[RowTable]) -> None:
        self.tables, self.context = tuple(tables), tables[0].context
        self.offsets = np.cumsum([0, *map(len, tables)])

    def __len__(self) -> int:
        return int(self.offsets[-1])

    def find_tasks(self, ids: np.ndarray) -> np.ndarray:
        """The table of each row, int64."""
        return np.searchsorted(self.offsets, ids, side="right") - 1

    def rows(self, ids: np.ndarray) -> Arrays:
        """The rows `ids` [B] as their tables have them, in the order asked for; "ids" are numbers of all rows."""
        ids = np.asarray(ids, dtype=np.int64)
        tasks = self.find_tasks(ids)
        present = np.unique(tasks).tolist()
        parts = [self.tables[task].rows(ids[tasks == task] - self.offsets[task]) for task in present]
        back = np.argsort(np.concatenate([np.flatnonzero(tasks == task) for task in present]))
        arrays = {name: np.concatenate([part[name] for part in parts])[back] for name in parts[0]}
        return {**arrays, "ids": ids}


@dataclass(frozen=True)
class StepSamples:
    """The samples of one micro-batch of all ranks together.

    rows    numbers of all rows, int64 [W*B]: rank r has those from r*B on
    tasks   the task of each, int64 [W*B]
    """

    rows: np.ndarray
    tasks: np.ndarray


class SequenceRows(Rows):
    """Micro-batches of one task after another, as `clock` says; each task begins its own first epoch.

    With `joint` every micro-batch is drawn from all tasks together. With `order` that says which rows come, among those
    of the task.
    """

    def __init__(
        self,
        table: JointTable,
        plan: BatchPlan,
        clock: TaskClock,
        *,
        joint: bool = False,
        order: RowOrder | None = None,
    ) -> None:
        self.table, self.plan, self.clock, self.joint, self.order = table, plan, clock, joint, order
        whole = dataclasses.replace(plan, batch=plan.global_batch, rank=0, world=1)
        tables = [table] if joint else table.tables
        self._whole = [EpochRows(part, whole) for part in tables]

    def __len__(self) -> int:
        return len(self.table)

    @property
    def batches_per_epoch(self) -> int:
        return sum(rows.batches_per_epoch for rows in self._whole)

    def batch(self, number: int) -> Arrays:
        begin = self.plan.rank * self.plan.batch
        return self.table.rows(self.find_samples(number).rows[begin : begin + self.plan.batch])

    def find_samples(self, number: int) -> StepSamples:
        """The samples of micro-batch `number` of all ranks."""
        if self.order is not None:
            rows = self.order.choose_rows(number * self.plan.global_batch + np.arange(self.plan.global_batch))
            return StepSamples(rows, self.table.find_tasks(rows))
        task = 0 if self.joint else self.clock.find_task(number)
        start = 0 if self.joint else self.clock.get_start(task)
        ids = self._whole[task].row_ids(number - start) + (0 if self.joint else self.table.offsets[task])
        return StepSamples(ids, self.table.find_tasks(ids))

    def state(self) -> dict[str, Any]:
        facts = {"ends": list(self.clock.ends), "accumulate": self.clock.accumulate, "joint": self.joint}
        order = {} if self.order is None else {"order": self.order.name}
        return describe_plan(self.plan, self.table.context) | facts | order

    def convert_number(self, number: int, *, global_batch: int) -> int:
        """The number itself: tasks begin at steps, so the batch stays what it was."""
        assert global_batch == self.plan.global_batch
        return number


class ChainedLoader:
    """The validation batches of several loaders behind each other."""

    def __init__(self, loaders: Sequence[ValLoader]) -> None:
        self.loaders = tuple(loaders)

    def __len__(self) -> int:
        return sum(map(len, self.loaders))

    def __iter__(self) -> Iterator[Batch]:
        for loader in self.loaders:
            yield from loader
