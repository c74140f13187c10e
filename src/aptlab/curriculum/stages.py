"""Levels of difficulty, and a gate of competence between them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from aptlab.curriculum.base import Answer, Clock, Course, Curriculum, Decision, Probe, RowSchedule
from aptlab.curriculum.metrics import DifficultyMetric, UnigramNLL
from aptlab.curriculum.tape import shuffle_numbers
from aptlab.errors import ConfigError, DataError
from aptlab.limits import Fraction, OpenFraction, PositiveInt, validate_limits

SHUFFLED, MEASURED = 11, 12  # purposes of random numbers
DECAY = 0.9  # of the moving average of competence


@dataclass(frozen=True, kw_only=True)
class CompetenceGate:
    """When a level is left.

    threshold  of competence: the average must be at least this
    patience   measurements in a row that must be
    demote     fall of the average below its best on this level that goes back one level; more than noise, so that
               levels do not change to and fro
    max_steps  optimizer steps on one level before the next one begins in any case; null: an equal share of the run's
    """

    threshold: Fraction = 0.8
    patience: PositiveInt = 2
    demote: Fraction = 0.1
    max_steps: PositiveInt | None = None

    def __post_init__(self) -> None:
        validate_limits(self)

    def count_steps(self, steps: int, levels: int) -> int:
        """Optimizer steps on one level at most, in a run of `steps`."""
        return self.max_steps or max(1, math.ceil(steps / levels))


@dataclass(frozen=True, kw_only=True)
class Stages(Curriculum):
    """From level to level, when the current one is mastered: baby steps with a gate of competence.

    Rows are sorted once by `metric` and cut into `levels` of equal size, the validation rows too. Every `every` steps
    the model's accuracy on validation rows of the current level is measured: the share of targets that it finds
    likeliest, of the next token for language. Competence is the moving average of that, with decay 0.9 and without
    the bias of its begin: c = sum_i 0.9^(k-i) a_i / sum_i 0.9^(k-i), anew on every level. A level is left as `gate`
    says; one that is never mastered is left after `gate.max_steps`, with a warning.

    cumulative   whether easier levels stay in training
    probe        validation rows of a measurement, fewer where they would be more than `probe_share` of trained rows
    probe_share  null: no limit
    """

    name: ClassVar[str] = "stages"
    needs_val: ClassVar[bool] = True

    metric: DifficultyMetric = field(default_factory=UnigramNLL)
    gate: CompetenceGate = field(default_factory=CompetenceGate)
    levels: PositiveInt = 5
    cumulative: bool = True
    every: PositiveInt = 20
    probe: PositiveInt = 64
    probe_share: OpenFraction | None = 0.05

    def __post_init__(self) -> None:
        validate_limits(self)
        if self.metric.of_model:
            raise ConfigError(
                "metric: stages sorts once, before training, and ModelLoss needs a model that is trained; use it in "
                "curriculum=campus or sorted, or take another metric"
            )

    def list_metrics(self) -> Mapping[str, DifficultyMetric]:
        return {"metric": self.metric}

    def count_probe_rows(self, rows_per_step: int) -> int:
        """Validation rows of one measurement. Raises ConfigError where `probe_share` allows none."""
        if self.probe_share is None:
            return self.probe
        found = min(self.probe, math.floor(self.probe_share * self.every * rows_per_step))
        if found < 1:
            raise ConfigError(
                f"probe_share={self.probe_share} of the {self.every * rows_per_step} rows that are trained on between "
                f"measurements is not one row; use a larger every={self.every}, or probe_share=null"
            )
        return found

    def check_step(self, rows: int) -> None:
        self.count_probe_rows(rows)

    def open(self, course: Course) -> RowSchedule:
        return StagesSchedule(self, course)


class StagesSchedule(RowSchedule):
    """Shuffled epochs of the open levels. Raises DataError where there are fewer rows than levels.

    level    from 1
    began    step at which it began
    """

    name = "stages"

    def __init__(self, rule: Stages, course: Course) -> None:
        super().__init__(course)
        self.rule = rule
        self.labels, self.val_labels = (
            cut_levels(side["metric"], rule.levels, name)
            for side, name in ((course.scores, "training"), (course.val_scores, "validation"))
        )
        self.level, self.began, self.epochs = 1, 0, 0
        self.measured_at = 0
        self._begin_level(0)
        self._started = False

    def _begin_level(self, step: int) -> None:
        self.began, self.weight, self.total, self.best, self.held = step, 0.0, 0.0, -math.inf, 0

    @property
    def competence(self) -> float:
        """The moving average on this level; nan before the first measurement."""
        return self.total / self.weight if self.weight else math.nan

    def prepare(self, clock: Clock) -> Sequence[Probe]:
        self.begin_tape(clock)
        if not self._started:
            self._started, self.began, self.measured_at = True, clock.step, clock.step
            self._note(clock, {})
        if clock.step > self.measured_at and clock.step % self.rule.every == 0:
            return [Probe(what="accuracy", ids=self._choose_val_rows(clock), side="val")]
        if self.level < self.rule.levels and clock.step - self.began >= self._count_most(clock):
            self._move(clock, self.level + 1, self._describe_unmastered(clock), urgent=True)
        while self.tape.end < clock.until:
            opened = self.labels <= self.level if self.rule.cumulative else self.labels == self.level
            rows = np.flatnonzero(opened)
            order = shuffle_numbers(len(rows), seed=self.course.seed, purpose=SHUFFLED, number=self.epochs)
            self.tape.append(rows[order])
            self.epochs += 1
        return ()

    def answer(self, clock: Clock, answers: Sequence[Answer]) -> None:
        accuracy, gate, self.measured_at = float(answers[0]), self.rule.gate, clock.step
        if math.isfinite(accuracy):
            self.weight, self.total = DECAY * self.weight + 1, DECAY * self.total + accuracy
            self.best = max(self.best, self.competence)
            self.held = self.held + 1 if self.competence >= gate.threshold else 0
        numbers = {"curriculum/accuracy": accuracy, "curriculum/competence": self.competence}
        level, now = self.level, f"{self.competence:.3f}"
        if self.held >= gate.patience and level < self.rule.levels:
            line = f"curriculum: level {level} mastered at step {clock.step}, competence {now}"
            self._move(clock, level + 1, line, numbers=numbers)
        elif level > 1 and self.best - self.competence > gate.demote:
            line = (
                f"curriculum: back to level {level - 1} at step {clock.step}: competence fell from {self.best:.3f} to "
                f"{now}, more than demote={gate.demote:g}"
            )
            self._move(clock, level - 1, line, numbers=numbers)
        else:
            self._note(clock, numbers)

    def _count_most(self, clock: Clock) -> int:
        return self.rule.gate.count_steps(clock.steps, self.rule.levels)

    def _describe_unmastered(self, clock: Clock) -> str:
        reached = f"at most {self.best:.3f}" if self.weight else "not measured"
        return (
            f"curriculum: level {self.level} was left after {clock.step - self.began} steps, its threshold="
            f"{self.rule.gate.threshold:g} never reached (competence {reached}); a lower gate.threshold or a larger "
            "gate.max_steps would wait for it"
        )

    def _choose_val_rows(self, clock: Clock) -> np.ndarray:
        """The same validation rows of a level each time."""
        rows = np.flatnonzero(self.val_labels == self.level)
        count = self.rule.count_probe_rows(clock.rows_per_step)
        some = shuffle_numbers(len(rows), seed=self.course.seed, purpose=MEASURED, number=self.level, take=count)
        return rows[some]

    def _move(
        self, clock: Clock, level: int, line: str, *, urgent: bool = False, numbers: Mapping[str, float] | None = None
    ) -> None:
        """Begin another level with the coming step."""
        self.tape.cut(clock.position)
        self.level = level
        self._begin_level(clock.step)
        self._note(clock, dict(numbers or {}), line, urgent=urgent)

    def _note(self, clock: Clock, numbers: Mapping[str, float], line: str = "", *, urgent: bool = False) -> None:
        found = {"curriculum/level": float(self.level), **numbers}
        self.decisions.append(Decision(step=clock.step, numbers=found, line=line, urgent=urgent))

    def state(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in KEPT}
        return {**super().state(), **own}

    def load(self, state: Mapping[str, Any]) -> None:
        super().load(state)
        for name in KEPT:
            setattr(self, name, state[name])
        self._started = True


KEPT = ("level", "began", "epochs", "measured_at", "weight", "total", "best", "held")


def cut_levels(scores: np.ndarray, levels: int, side: str) -> np.ndarray:
    """The level of every row, from 1, all of the same size; int16. Raises DataError where there are too few rows."""
    if len(scores) < levels:
        raise DataError(f"levels={levels} of {len(scores)} {side} rows: there are fewer rows; use fewer levels")
    ranks = np.empty(len(scores), dtype=np.int64)
    ranks[np.argsort(scores, kind="stable")] = np.arange(len(scores))
    return (ranks * levels // len(scores) + 1).astype(np.int16)
