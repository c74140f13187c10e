"""Curricula over the tasks of a scenario: each task has its own, and replay goes beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from tests.continual.small import find_run_difference, read_state, read_tasks, resume_copy, train, write_scenario

from aptlab.callbacks.curriculum import CurriculumOrder
from aptlab.curriculum import Campus, Course, SortedOrder, Stages, TokenCount
from aptlab.curriculum.sections import SectionedSchedule
from aptlab.data.rows.numbered import Section
from aptlab.data.rows.order import permute_indices
from aptlab.errors import DataError
from aptlab.testing.curriculum import ScheduleDriver, answer_by_rows

SECTIONS = [
    Section(name="first", begin=0, end=6, train=(0, 24), val=(0, 10)),
    Section(name="second", begin=6, end=16, train=(24, 50), val=(10, 4)),
]
SCORES = {"metric": np.random.default_rng(0).random(74)}
COURSE = Course(rows=74, seed=3, scores=SCORES, val_scores={"metric": np.arange(14.0)})


def test_each_section_has_its_own_rows_in_its_own_order():
    schedule = SectionedSchedule(SortedOrder(), COURSE, SECTIONS)
    driver = ScheduleDriver(schedule, answer_by_rows, steps=16).train(16)
    first, second = np.array(driver.rows[:24]), np.array(driver.rows[24:])
    assert sorted(first.tolist()) == list(range(24))
    assert second.min() >= 24
    assert len(set(second.tolist())) == 40
    assert (np.diff(SCORES["metric"][first]) >= 0).all()
    assert (np.diff(SCORES["metric"][second]) >= 0).all()
    assert [decision.step for decision in driver.decisions] == [0, 6]


def test_what_is_asked_is_of_the_section_and_lines_name_it():
    asked: list[Any] = []
    rule = Stages(levels=2, every=3, probe=2, probe_share=None)
    schedule = SectionedSchedule(rule, COURSE, SECTIONS)
    driver = ScheduleDriver(schedule, lambda probe, step: asked.append((step, probe.ids)) or 0.1, steps=16).train(16)
    assert [step for step, _ in asked] == [3, 9, 12, 15]
    assert all((ids < 10).all() if step < 6 else (ids >= 10).all() for step, ids in asked)
    lines = [decision.line for decision in driver.decisions if decision.line]
    assert [line.partition(": level 1 was left")[0] for line in lines] == [
        "curriculum of first, from step 0",
        "curriculum of second, from step 6",
    ]


def test_a_pass_has_the_rows_that_an_epoch_of_its_task_would_have():
    """With the seed of the run, as without a curriculum: only their order differs."""
    rows = ScheduleDriver(SectionedSchedule(SortedOrder(), COURSE, SECTIONS), answer_by_rows, steps=16).train(16).rows
    assert set(rows[24:]) == {24 + row for row in permute_indices(np.arange(40), count=50, seed=3, epoch=0).tolist()}


RESUMED = {
    "campus": Campus(metrics={"metric": TokenCount(), "other": TokenCount()}, slices=3, probe_share=None, replay=0.2),
    "stages": Stages(levels=2, every=3, probe=2, probe_share=None),
    "sorted": SortedOrder(),
}


@pytest.mark.parametrize("name", RESUMED)
def test_a_resumed_one_goes_on_with_the_same_rows_and_decisions(name):
    course = Course(rows=74, seed=3, scores={**SCORES, "other": np.arange(74.0)}, val_scores=COURSE.val_scores)

    def make() -> ScheduleDriver:
        return ScheduleDriver(SectionedSchedule(RESUMED[name], course, SECTIONS), answer_by_rows, steps=16)

    whole = make().train(16)
    for at in (2, 5, 6, 7, 11):
        first, again = make().train(at), make()
        again.schedule.load(first.schedule.state())
        again.step, again.position = first.step, first.position
        again.train(16 - at)
        assert first.rows + again.rows == whole.rows, at
        assert repr(first.decisions + again.decisions) == repr(whole.decisions), at


@pytest.mark.parametrize(("kept", "told"), [("same", False), ("none", True), ("other", True)])
def test_difficulties_that_are_others_than_those_of_the_checkpoint_are_told_of(kept, told, caplog):
    order = CurriculumOrder(SortedOrder())
    order.schedule = SectionedSchedule(SortedOrder(), COURSE, SECTIONS)
    state: dict[str, Any] = order.state_dict()
    assert state["difficulties"] == COURSE.scores_digest
    if kept == "none":
        del state["difficulties"]  # as earlier versions wrote it
    elif kept == "other":
        order.schedule = SectionedSchedule(SortedOrder(), replace(COURSE, scores={"metric": np.zeros(74)}), SECTIONS)
    order.load_state_dict(state)
    order.on_train_start(cast(Any, SimpleNamespace(global_step=0)), cast(Any, None))
    assert ("rows were ordered by other difficulties; rows to come go by new ones" in caplog.text) == told


def test_a_section_that_is_too_small_is_named():
    with pytest.raises(DataError, match=r"^second: levels=5 of 4 validation rows: there are fewer rows"):
        SectionedSchedule(Stages(), COURSE, SECTIONS)


@pytest.mark.slow
def test_a_curriculum_goes_with_a_scenario_and_replay_and_resumes_to_the_bit():
    write_scenario()
    words = ["curriculum=campus", "curriculum.probe_share=null", "curriculum.slices=2", "curriculum.metrics.mtld=null"]
    words += ["replay=reservoir", "replay.capacity=12"]
    whole = train("whole", *words)
    assert len(read_tasks(whole)["matrix"]) == 3
    state = read_state(whole)
    assert state["callbacks"]["CurriculumOrder"]["probed"] > 0
    assert len({entry["step"] for entry in state["callbacks"]["CurriculumOrder"]["timeline"]}) > 2
    assert (Path(whole) / "curriculum.png").exists()
    for step in (2, 3, 7):  # inside a task, at its end, inside a later one
        assert find_run_difference(whole, resume_copy(whole, step, f"copy-{step}")) is None
