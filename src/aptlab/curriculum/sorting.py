"""One pass from easy to hard, or from hard to easy: the baselines of every curriculum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from aptlab.curriculum.base import Answer, Clock, Course, Curriculum, Decision, Probe, RowSchedule, sort_rows
from aptlab.curriculum.metrics import DifficultyMetric, UnigramNLL


@dataclass(frozen=True, kw_only=True)
class SortedOrder(Curriculum):
    """Rows sorted by one metric, once a pass; equal ones in random order.

    A pass holds the rows that a shuffled epoch would hold: all of them, or as many as the run has left, drawn at
    random. So a run that is shorter than an epoch sees the whole range of difficulty, and the same rows as
    curriculum=none.

    metric        difficulty
    harder_first  anti-curriculum
    """

    name: ClassVar[str] = "sorted"

    metric: DifficultyMetric = field(default_factory=UnigramNLL)
    harder_first: bool = False

    def list_metrics(self) -> Mapping[str, DifficultyMetric]:
        return {"metric": self.metric}

    def open(self, course: Course) -> RowSchedule:
        return SortedSchedule(self, course)


class SortedSchedule(RowSchedule):
    """Passes over sorted rows."""

    name = "sorted"

    def __init__(self, rule: SortedOrder, course: Course) -> None:
        super().__init__(course)
        self.rule, self.passes = rule, 0

    def prepare(self, clock: Clock) -> Sequence[Probe]:
        self.begin_tape(clock)
        while self.tape.end < clock.until:
            pool = self._next_pool(clock)
            if self.rule.metric.of_model:
                return [Probe(what="rows", ids=pool)]
            self._append(clock, pool, self.course.scores["metric"])
        return ()

    def answer(self, clock: Clock, answers: Sequence[Answer]) -> None:
        pool, scores = self._next_pool(clock), np.zeros(self.course.rows)
        scores[pool] = answers[0]
        self._append(clock, pool, scores)

    def _next_pool(self, clock: Clock) -> np.ndarray:
        left = clock.rows_left - (self.tape.end - clock.position)
        return self.course.choose_pool(self.passes, min(self.course.rows, max(1, left)))

    def _append(self, clock: Clock, pool: np.ndarray, scores: np.ndarray) -> None:
        self.tape.append(sort_rows(pool, scores, harder_first=self.rule.harder_first))
        self.passes += 1
        numbers = {"curriculum/pass": float(self.passes), "curriculum/rows": float(len(pool))}
        self.decisions.append(Decision(step=clock.step, numbers=numbers))

    def state(self) -> dict[str, Any]:
        return {**super().state(), "passes": self.passes}

    def load(self, state: Mapping[str, Any]) -> None:
        super().load(state)
        self.passes = int(state["passes"])
