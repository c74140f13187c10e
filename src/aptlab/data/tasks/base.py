"""The data module of a scenario: rows of one task after another, resumed at any step."""

from __future__ import annotations

import itertools
import logging
from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from lightning.pytorch import LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn

from aptlab.data.loader import Batch, RowLoader, ValLoader, to_tensors
from aptlab.data.ranks import count_read_batches, find_rank_share
from aptlab.data.rows.base import BatchPlan, RowTable
from aptlab.data.rows.epochs import ValidationRows
from aptlab.data.rows.numbered import JoinedRows, NumberedRows, Section
from aptlab.data.rows.order import RowOrder
from aptlab.data.scenarios import Scenario, TaskClock, plan_task_ends
from aptlab.data.store.cache import find_cache_root
from aptlab.data.tasks.rows import ChainedLoader, JointTable, SequenceRows, StepSamples
from aptlab.errors import CheckpointError, ConfigError

log = logging.getLogger("aptlab")
AHEAD = 2
SHUFFLED = "none"  # the order of rows where no curriculum gives one
FIXED = ("global_batch", "accumulate", "seed", "joint", "context")  # what numbers of micro-batches mean


class TaskData(LightningDataModule):
    """Training rows of the tasks of a scenario in their order, without end, and validation rows of each.

    `batch` rows make a micro-batch on each device; `seed` decides their order within a task. Each task is validated on
    `val_batches * batch` rows. `bind_steps` must be called before training: tasks begin at optimizer steps.

    A task is named by its number, from 0. Rows are numbered over all tasks.

    row_kind  what the "inputs" of a row with a class are: images or tokens; None: rows have no class
    """

    row_kind: ClassVar[str | None] = None

    def __init__(self, scenario: Scenario, *, batch: int, seed: int = 0, val_batches: int | None = None) -> None:
        super().__init__()
        self.scenario, self.batch, self.seed, self.val_batches = scenario, batch, seed, val_batches
        self.clock: TaskClock | None = None
        self._made: dict[BatchPlan, SequenceRows] = {}
        self._order: RowOrder | None = None
        self._late: RowLoader | None = None  # makes the batches of an order that changes with training
        self._start = self._counted = 0

    # What a kind of data says

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """64 hex digits: what is trained on, and in which order tasks come."""

    @abstractmethod
    def summary(self) -> dict[str, Any]:
        """Plain values for result.json, with "name"."""

    @abstractmethod
    def make_tables(self, side: str) -> list[RowTable]:
        """The rows of each task, of the side train or val. Raises DataError naming a task without any."""

    def find_labels(self, rows: np.ndarray) -> np.ndarray | None:
        """The class of each training row, int64; None where rows have none."""
        del rows
        return None

    def list_task_classes(self) -> list[list[int]] | None:
        """The classes that each task brings; None where tasks have none of their own."""
        return None

    # Tasks

    @property
    def task_names(self) -> tuple[str, ...]:
        """The tasks, in their order."""
        return self.scenario.names

    def bind_steps(self, *, total: int, accumulate: int) -> None:
        """Say how long the run is, in optimizer steps. Raises ConfigError where it is too short for the tasks."""
        self.clock = TaskClock(plan_task_ends(self.scenario.steps, self.task_names, total=total), accumulate)
        self._made.clear()

    def require_boundaries(self, asks: str, instead: str = "") -> None:
        """ConfigError where nobody may know where a task begins and ends; `asks` says who does, in words."""
        if self.scenario.boundaries == "hidden":
            other = f", or {instead}" if instead else ""
            raise ConfigError(f"scenario.boundaries=hidden, and {asks}; use scenario.boundaries=known{other}")

    def find_samples(self, micro_batch: int) -> StepSamples:
        """The samples of a micro-batch of all ranks, counted since the run began."""
        return self._training_rows().find_samples(micro_batch)

    def count_micro_batches(self) -> int:
        """Micro-batches of this rank that were trained on, over all resumes: the number of the next one."""
        return self._start + count_read_batches(self.trainer) - self._counted

    def count_world(self) -> int:
        """Ranks that have different rows."""
        return self._plan().world

    def fetch_rows(self, rows: np.ndarray) -> Batch:
        """Training rows by number, as a micro-batch has them, on the host."""
        return to_tensors(self.joint_table.rows(rows))

    def list_task_rows(self, task: int) -> np.ndarray:
        """The numbers of all training rows of a task."""
        return np.arange(*self.joint_table.offsets[task : task + 2])

    def open_task_loader(self, task: int) -> ValLoader:
        """The validation rows of a task, of this rank."""
        limit = None if self.val_batches is None else self.val_batches * self.batch
        return ValLoader(ValidationRows(self.val_tables[task], self._plan(), limit=limit))

    @cached_property
    def joint_table(self) -> JointTable:
        """All training rows."""
        return JointTable(self.make_tables("train"))

    @cached_property
    def val_tables(self) -> list[RowTable]:
        """The validation rows of each task."""
        return self.make_tables("val")

    # Rows by number, and their order: see `aptlab.data.rows.numbered.OrderedData`

    @abstractmethod
    def number_task_rows(self, side: str) -> list[NumberedRows]:
        """The rows of each task, of the side train or val, by number."""

    def number_rows(self, side: str) -> NumberedRows:
        """The rows of all tasks behind each other."""
        table = self.joint_table if side == "train" else JointTable(self.val_tables)
        return JoinedRows(self.number_task_rows(side), names=self.task_names, table=table)

    def list_sections(self) -> list[Section]:
        """The tasks, where they come one after another. ConfigError where nobody may know where one ends."""
        assert self.clock is not None
        if self.scenario.joint:
            return []
        asks = "a curriculum asks where a task ends, for it orders the rows of each"
        self.require_boundaries(asks, "curriculum=none")
        begins, at = [0, *self.clock.ends[:-1]], [np.cumsum([0, *map(len, self.val_tables)]), self.joint_table.offsets]
        return [
            Section(
                name=name,
                begin=begins[task],
                end=self.clock.ends[task],
                train=(int(at[1][task]), int(at[1][task + 1] - at[1][task])),
                val=(int(at[0][task]), int(at[0][task + 1] - at[0][task])),
            )
            for task, name in enumerate(self.task_names)
        ]

    def set_order(self, order: RowOrder | None) -> None:
        """Train in this order from the next loader on; None for shuffled epochs."""
        self._order = order
        self._made.clear()

    def count_given_rows(self) -> int:
        """Rows that all ranks together have trained on."""
        return self.count_micro_batches() * self.count_global_batch()

    def count_global_batch(self) -> int:
        """Rows of one micro-batch of all ranks together."""
        return self._plan().global_batch

    @property
    def store_folder(self) -> Path:
        """The folder of all caches."""
        return find_cache_root()

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """The batch; made only now where its loader gave its number."""
        del dataloader_idx
        return self._late.batch_at(batch) if self._late is not None and isinstance(batch, int) else batch

    # What Lightning and a run ask

    def train_dataloader(self) -> RowLoader:
        """The endless loader of this rank, from the first micro-batch that was not trained on."""
        on_cuda = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        self._counted = count_read_batches(self.trainer)
        late = self._order is not None
        ahead = AHEAD if on_cuda and not late else 0
        loader = RowLoader(self._training_rows(), start=self._start, prefetch=ahead, pin=on_cuda, late=late)
        self._late = loader if late else None
        return loader

    def val_dataloader(self) -> ChainedLoader:
        """The validation rows of all tasks, of this rank."""
        return ChainedLoader([self.open_task_loader(task) for task in range(len(self.task_names))])

    def batches_per_epoch(self, world: int) -> int:
        """Micro-batches of each of `world` devices in one pass over all tasks. Raises ConfigError where none fits."""
        clock = TaskClock(tuple(range(1, len(self.task_names) + 1)))
        plan = BatchPlan(batch=self.batch, seed=self.seed, world=world)
        return SequenceRows(self.joint_table, plan, clock, joint=self.scenario.joint).batches_per_epoch

    def epoch_of(self, micro_batches: int) -> float:
        """Passes over the rows of all tasks that so many micro-batches on each device are."""
        return micro_batches / self._training_rows().batches_per_epoch

    def state_dict(self) -> dict[str, Any]:
        """Micro-batches trained on, and what makes their number meaningful. Plain values."""
        return {
            "micro_batches": self.count_micro_batches(),
            "fingerprint": self.fingerprint,
            **self._training_rows().state(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken. Raises CheckpointError where rows or tasks would be other ones."""
        if self.trainer is not None and self.trainer.state.fn not in (None, TrainerFn.FITTING):
            return
        self.check_state(state_dict)
        before, now = state_dict.get("order", SHUFFLED), self._order.name if self._order else SHUFFLED
        if before != now:
            log.warning("resuming with rows in the order %s in place of %s: rows may repeat", now, before)
        self._start = state_dict["micro_batches"]

    def check_state(self, state_dict: dict[str, Any]) -> None:
        """CheckpointError where `state_dict` is of other data, or of tasks that begin at other steps."""
        if state_dict.get("fingerprint", self.fingerprint) != self.fingerprint:
            raise CheckpointError(
                "the checkpoint was trained on other tasks; resume with the scenario, tokenizer, split and context it "
                "had, or start a new run from its weights with load=weights"
            )
        if self.clock is None or "ends" not in state_dict:
            return
        before, now = list(state_dict["ends"])[:-1], list(self.clock.ends)[:-1]
        if before != now:
            ends = [0, *before, state_dict["ends"][-1]]
            each = [end - begin for begin, end in itertools.pairwise(ends)]
            raise CheckpointError(
                f"the checkpoint's tasks end at steps {before} and the last one with the run, and now they would at "
                f"{now}; resume with load=resume scenario.steps={str(each).replace(' ', '')}"
            )
        state = self._training_rows().state()
        for name in FIXED:
            if state_dict.get(name, state.get(name)) != state.get(name):
                raise CheckpointError(
                    f"the checkpoint was trained with {name}={state_dict[name]}, now {state.get(name)}: tasks would "
                    "begin at other rows; resume with what it had, or start a new run with load=weights"
                )

    def _training_rows(self) -> SequenceRows:
        plan = self._plan()
        if plan not in self._made:
            if self.clock is None:
                raise ConfigError("tasks begin at steps; call bind_steps(total=…, accumulate=…) before training")
            joint, order = self.scenario.joint, self._order
            self._made[plan] = SequenceRows(self.joint_table, plan, self.clock, joint=joint, order=order)
        return self._made[plan]

    def _plan(self) -> BatchPlan:
        rank, world = find_rank_share(self.trainer)
        return BatchPlan(batch=self.batch, seed=self.seed, rank=rank, world=world)


def require_tasks(data: object, why: str, choose: str) -> None:
    """ConfigError where data have no tasks; `why` says what needs them, and `choose` what has some."""
    if not isinstance(data, TaskData):
        raise ConfigError(f"{why}, and {type(data).__name__} are none; choose {choose}")


def name_empty_task(name: str, error: Exception) -> str:
    """The message for a task whose rows cannot be made."""
    return f"scenario: the task {name} has nothing to learn from or to be measured on: {error}"


def count_rows(tables: Sequence[RowTable]) -> int:
    """Rows of all tables."""
    return sum(map(len, tables))
