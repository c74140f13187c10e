"""What a curriculum is to a run: a rule, and a schedule that asks, is answered, and writes rows ahead of training.

    Curriculum   the rule, as a config names it; opens a schedule for one run
    Course       what the run gives it: rows, seed, difficulties
    Clock        where the run is, at the begin of an optimizer step
    Probe        what the schedule asks a model before it goes on
    Decision     what it decided, for logs and figures

Before every optimizer step the run calls `prepare` until nothing is asked any more; then all rows of that step are
written. What is written was decided by the model as it was then, and never by a later one.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np

from aptlab.curriculum.metrics import DifficultyMetric
from aptlab.curriculum.tape import Tape, shuffle_numbers
from aptlab.data.rows.order import RowOrder

Answer = float | np.ndarray
Scores = Mapping[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Clock:
    """Where a run is, at the begin of an optimizer step.

    step      optimizer steps taken
    position  rows trained on by all ranks together
    until     position after the coming step
    steps     steps of the whole run
    """

    step: int
    position: int
    until: int
    steps: int

    @property
    def rows_per_step(self) -> int:
        """Rows of one step on all ranks together."""
        return self.until - self.position

    @property
    def rows_left(self) -> int:
        """Rows from here to the end of the run, at least those of one step."""
        return max(1, self.steps - self.step) * self.rows_per_step


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What a schedule asks of the model as it is now.

    what  "loss": mean loss per target of the rows; "accuracy": share of targets that are the likeliest output;
          "rows": mean loss per target of each row
    ids   row numbers, int64
    side  of the data
    """

    what: Literal["loss", "accuracy", "rows"]
    ids: np.ndarray
    side: Literal["train", "val"] = "train"


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What was decided before a step: numbers for metrics.csv by name, and a line for the log, if any.

    urgent  whether the line is a warning
    """

    step: int
    numbers: dict[str, float]
    line: str = ""
    urgent: bool = False


@dataclass(frozen=True, kw_only=True)
class Course:
    """What a run gives its curriculum.

    rows        of the training side
    seed        of the run
    scores      difficulty of every training row by the name of its metric, float64 [rows], but those of a model
    val_scores  the same of the validation rows, for curricula that ask for them
    """

    rows: int
    seed: int
    scores: Scores
    val_scores: Scores = field(default_factory=dict)

    @cached_property
    def scores_digest(self) -> str:
        """16 hex digits of all difficulties."""
        found = hashlib.sha256()
        for side in (self.scores, self.val_scores):
            for name, values in side.items():
                found.update(name.encode() + np.ascontiguousarray(values, dtype="<f8").tobytes())
        return found.hexdigest()[:16]

    def choose_pool(self, number: int, size: int) -> np.ndarray:
        """Rows of pass `number`: the first `size` of the shuffled epoch with that number, as training without a
        curriculum would take them.
        """
        return shuffle_numbers(self.rows, seed=self.seed, purpose=0, number=number, take=size)


class RowSchedule(RowOrder, ABC):
    """The order of a run's rows while it is being decided. Its state is plain values and numpy arrays."""

    def __init__(self, course: Course) -> None:
        self.course, self.tape = course, Tape()
        self.decisions: list[Decision] = []

    @abstractmethod
    def prepare(self, clock: Clock) -> Sequence[Probe]:
        """What must be measured before the rows up to `clock.until` can be written; empty: they are."""

    @abstractmethod
    def answer(self, clock: Clock, answers: Sequence[Answer]) -> None:
        """Take what was measured, in the order of the probes, and decide."""

    def choose_rows(self, positions: np.ndarray) -> np.ndarray:
        return self.tape.read(positions)

    def take_decisions(self) -> list[Decision]:
        """What was decided since the last call."""
        found, self.decisions = self.decisions, []
        return found

    def begin_tape(self, clock: Clock) -> None:
        """Start to write where the run is, and forget what is far behind it."""
        if not self.tape.begun and self.tape.end < clock.position:
            self.tape.begin(clock.position)
        self.tape.forget(clock.position)

    def measure_difficulty(self, positions: np.ndarray) -> float | None:
        """Mean rank of the rows at `positions` by the first metric, in [0, 1]; None where a model measures it."""
        if not self.course.scores:
            return None
        if self._ranks is None:
            scores = next(iter(self.course.scores.values()))
            order = np.argsort(scores, kind="stable")
            ranks = np.empty(len(order), dtype=np.float32)
            ranks[order] = np.linspace(0, 1, len(order), dtype=np.float32)
            self._ranks = ranks
        return float(self._ranks[self.tape.read(positions)].mean())

    _ranks: np.ndarray | None = None

    def state(self) -> dict[str, Any]:
        """What a resumed run needs: the rows that are written, and more of a schedule's own."""
        return {"tape": self.tape.state()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take `state` back."""
        self.tape.load(state["tape"])


class Curriculum(ABC):
    """A rule of the group `curriculum`: in which order rows are trained on. A frozen dataclass.

    name       of its orders in checkpoints
    orders     whether it gives an order at all; else rows are shuffled every epoch
    needs_val  whether it asks for difficulties of validation rows
    """

    name: ClassVar[str]
    orders: ClassVar[bool] = True
    needs_val: ClassVar[bool] = False

    @abstractmethod
    def list_metrics(self) -> Mapping[str, DifficultyMetric]:
        """The metrics by name, in their order."""

    @abstractmethod
    def open(self, course: Course) -> RowSchedule:
        """A schedule at its begin."""

    def check_step(self, rows: int) -> None:
        """ConfigError where a run with so many rows in each optimizer step could not follow this curriculum."""
        del rows


@dataclass(frozen=True, kw_only=True)
class RandomOrder(Curriculum):
    """Every row once an epoch, in a new random order each time."""

    name: ClassVar[str] = "none"
    orders: ClassVar[bool] = False

    def list_metrics(self) -> Mapping[str, DifficultyMetric]:
        return {}

    def open(self, course: Course) -> RowSchedule:
        raise AssertionError("a random order needs no schedule")


def sort_rows(pool: np.ndarray, scores: np.ndarray, *, harder_first: bool = False) -> np.ndarray:
    """The rows of a pool by their difficulty; equal ones stay in the order of the pool."""
    values = scores[pool]
    return pool[np.argsort(-values if harder_first else values, kind="stable")]
