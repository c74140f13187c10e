"""Laws of curricula, measured without a model: a driver asks a schedule for rows as a run does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from aptlab.checkpoint.plain import check_plain, pack_arrays, unpack_arrays
from aptlab.curriculum import Clock, Course, Curriculum, Decision, Probe, RowSchedule
from aptlab.testing.contract import Contract

ROWS, VAL_ROWS, STEPS = 97, 40, 60
Answers = Callable[[Probe, int], Any]


def answer_by_rows(probe: Probe, step: int) -> Any:
    """Numbers that depend on the rows and the step alone, as a model's would on its weights."""
    if probe.what == "accuracy":
        return float(abs(np.sin(step)))
    values = np.cos(probe.ids * 1.7 + step / 9)
    return values if probe.what == "rows" else float(values.mean())


class ScheduleDriver:
    """A run as far as a schedule looks at it: `batch` rows a step, and probes answered by a function of probe and step.

    rows       row numbers in the order in which they were trained on
    decisions  what the schedule decided
    probed     rows that it asked about
    """

    def __init__(self, schedule: RowSchedule, answer: Answers, *, batch: int = 4, steps: int = 1000) -> None:
        self.schedule, self.answer, self.batch, self.steps = schedule, answer, batch, steps
        self.step = self.position = self.probed = 0
        self.rows: list[int] = []
        self.decisions: list[Decision] = []

    def train(self, count: int) -> ScheduleDriver:
        """Take `count` steps."""
        for _ in range(count):
            until = self.position + self.batch
            clock = Clock(step=self.step, position=self.position, until=until, steps=self.steps)
            while probes := self.schedule.prepare(clock):
                self.probed += sum(len(probe.ids) for probe in probes)
                self.schedule.answer(clock, [self.answer(probe, self.step) for probe in probes])
            self.rows += self.schedule.choose_rows(np.arange(self.position, until)).tolist()
            self.decisions += self.schedule.take_decisions()
            self.step, self.position = self.step + 1, until
        return self


class CurriculumContract(Contract):
    """Laws of one curriculum: its rows are rows, an equal state gives equal ones, and a resumed schedule goes on.

    rule  an instance; every metric of it is given random difficulties

    Override `make_course` where it needs others.
    """

    rule: Curriculum

    def make_course(self) -> Course:
        """What the schedule is opened with."""
        random = np.random.default_rng(0)
        metrics = {name: metric for name, metric in self.rule.list_metrics().items() if not metric.of_model}
        return Course(
            rows=ROWS,
            seed=5,
            scores={name: random.random(ROWS) for name in metrics},
            val_scores={name: random.random(VAL_ROWS) for name in metrics},
        )

    def make_driver(self) -> ScheduleDriver:
        """A run at its begin."""
        return ScheduleDriver(self.rule.open(self.make_course()), answer_by_rows, steps=STEPS)

    def test_rows_are_rows_of_the_data(self) -> None:
        rows = self.make_driver().train(STEPS).rows
        assert all(0 <= row < ROWS for row in rows), "a number is that of no row"

    def test_equal_schedules_give_equal_rows(self) -> None:
        one, two = (self.make_driver().train(STEPS).rows for _ in range(2))
        assert one == two, "equal schedules with equal answers gave other rows"

    def test_a_row_that_was_asked_for_stays_where_it_is(self) -> None:
        driver = self.make_driver().train(STEPS // 2)
        last = driver.rows[-driver.batch :]
        again = driver.schedule.choose_rows(np.arange(driver.position - driver.batch, driver.position)).tolist()
        assert again == last, "the rows of the last step changed when they were asked for again"

    def test_a_resumed_schedule_goes_on_with_the_same_rows(self) -> None:
        whole = self.make_driver().train(STEPS).rows
        for at in (1, STEPS // 4, STEPS - 7):
            first, again = self.make_driver().train(at), self.make_driver()
            packed = pack_arrays(first.schedule.state())
            check_plain(packed, f"state of {type(first.schedule).__name__}")
            again.schedule.load(unpack_arrays(packed))
            again.step, again.position = first.step, first.position
            assert first.rows + again.train(STEPS - at).rows == whole, f"resumed at step {at}, it gave other rows"
