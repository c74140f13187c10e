"""Orders of rows: laws that hold for every curriculum, and the schedules of the papers in plain loops."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from tests.reference import curriculum as reference

from aptlab.curriculum import (
    MTLD,
    BabySteps,
    Campus,
    CampusPacing,
    Clock,
    CompetenceGate,
    CompressionRatio,
    Course,
    Curriculum,
    DifficultyMetric,
    LinearPacing,
    ModelLoss,
    Probe,
    RandomOrder,
    RowSchedule,
    SortedOrder,
    SqrtPacing,
    Stages,
    TokenCount,
    UnigramNLL,
)
from aptlab.curriculum.campus import CampusSchedule
from aptlab.curriculum.tape import Tape, draw_uniform, shuffle_numbers
from aptlab.data.rows.order import permute_indices
from aptlab.errors import ConfigError, DataError
from aptlab.testing import CurriculumContract
from aptlab.testing.curriculum import ScheduleDriver as Driver
from aptlab.testing.curriculum import answer_by_rows

ROWS, SEED = 97, 5
RANDOM = np.random.default_rng(1)
SCORES = {"one": RANDOM.random(ROWS), "two": RANDOM.integers(0, 5, ROWS).astype(float), "three": RANDOM.random(ROWS)}
METRICS = {name: TokenCount() for name in SCORES}


def make_course(rows: int = ROWS, **rest: Any) -> Course:
    scores = {**SCORES, "metric": SCORES["one"]} if rows == ROWS else {"metric": np.arange(rows, dtype=float)}
    return Course(rows=rows, seed=SEED, scores=scores, val_scores={"metric": np.arange(40.0)}, **rest)


def no_answer(probe: Any, step: int) -> float:
    raise AssertionError("nothing should be asked")


CURRICULA: dict[str, Any] = {
    "sorted": SortedOrder(),
    "anti": SortedOrder(harder_first=True),
    "sorted by loss": SortedOrder(metric=ModelLoss()),
    "campus": Campus(metrics=METRICS),
    "campus that probes all": Campus(metrics=METRICS, probe_share=None, slices=5),
    "campus that asks once": Campus(metrics=METRICS, probe_share=0.5),
    "campus softmax": Campus(metrics=METRICS, mode="softmax", probe_share=None),
    "campus round robin": Campus(metrics=METRICS, mode="round_robin", pacing=SqrtPacing()),
    "campus with the loss": Campus(metrics={**METRICS, "loss": ModelLoss(refresh=3)}, probe_share=None),
}


@pytest.mark.parametrize("name", CURRICULA)
def test_a_pass_shows_every_row_once(name):
    """Two passes of 97 rows; batches of 4 do not fill them."""
    driver = Driver(CURRICULA[name].open(make_course()), answer_by_rows).train(49)
    assert sorted(driver.rows[:ROWS]) == list(range(ROWS))
    assert sorted(driver.rows[ROWS : 2 * ROWS]) == list(range(ROWS))


@pytest.mark.parametrize("name", CURRICULA)
def test_a_run_shorter_than_an_epoch_sees_the_rows_that_a_shuffled_one_sees(name):
    driver = Driver(CURRICULA[name].open(make_course()), answer_by_rows, steps=10).train(10)
    shuffled = permute_indices(np.arange(40), count=ROWS, seed=SEED, epoch=0)
    assert sorted(driver.rows) == sorted(shuffled.tolist())


RESUMED = {
    **CURRICULA,
    "campus with replay": Campus(metrics=METRICS, replay=0.25),
    "stages": Stages(every=3, gate=CompetenceGate(threshold=0.3, patience=1), probe_share=None),
    "stages apart": Stages(every=2, cumulative=False, levels=3, gate=CompetenceGate(max_steps=7), probe_share=None),
}


@pytest.mark.parametrize("law", [name for name in dir(CurriculumContract) if name.startswith("test_")])
@pytest.mark.parametrize("name", RESUMED)
def test_every_curriculum_keeps_the_laws(name, law):
    contract = CurriculumContract()
    contract.rule = RESUMED[name]
    getattr(contract, law)()


class DriftingSchedule(RowSchedule):
    """Counts what it wrote, and leaves the count out of its state."""

    name = "drifting"
    written = 0

    def prepare(self, clock: Clock) -> Sequence[Probe]:
        self.begin_tape(clock)
        while self.tape.end < clock.until:
            self.tape.append(np.array([self.written % self.course.rows]))
            self.written += 1
        return ()

    def answer(self, clock: Clock, answers: Sequence[Any]) -> None: ...


class Drifting(Curriculum):
    name = "drifting"

    def list_metrics(self) -> Mapping[str, DifficultyMetric]:
        return {}

    def open(self, course: Course) -> RowSchedule:
        return DriftingSchedule(course)


def test_a_schedule_that_forgets_is_found():
    contract = CurriculumContract()
    contract.rule = Drifting()
    contract.test_rows_are_rows_of_the_data()
    with pytest.raises(AssertionError, match="resumed at step 1, it gave other rows"):
        contract.test_a_resumed_schedule_goes_on_with_the_same_rows()


@pytest.mark.parametrize("seed", range(4))
def test_campus_takes_the_slices_that_the_paper_takes(seed):
    """Against plain loops: three metrics, losses out of a table, whole slices measured."""
    random = np.random.default_rng(seed)
    scores = [random.permutation(60) / 7, random.integers(0, 60, 60) + random.random(60), random.random(60)]
    losses = random.random(60) * 3

    def mean_loss(rows: Any) -> float:
        return float(np.mean([losses[row] for row in sorted(rows)]))

    expected = reference.campus_pass([one.tolist() for one in scores], 5, 0.05, 2.0, mean_loss)
    rule = Campus(metrics=METRICS, slices=5, pacing=CampusPacing(first=0.05), probe=60, probe_share=None, mode="argmin")
    course = Course(rows=60, seed=SEED, scores=dict(zip(METRICS, scores, strict=True)))
    driver = Driver(rule.open(course), lambda probe, step: mean_loss(probe.ids.tolist()), batch=1).train(60)
    names, taken, at = [], [], 0
    for decision in driver.decisions:
        count = int(decision.numbers["curriculum/rows"])
        names.append(int(decision.numbers["curriculum/metric"]))
        taken.append(set(driver.rows[at : at + count]))
        at += count
    assert list(zip(names, taken, strict=True)) == expected
    assert len(expected) >= 5


def test_campus_probes_no_more_than_its_share_and_says_what_that_means():
    rule = Campus(metrics=METRICS, slices=4)
    big = Course(rows=20_000, seed=0, scores={name: np.random.default_rng(2).random(20_000) for name in METRICS})
    driver = Driver(rule.open(big), answer_by_rows, batch=50).train(400)
    assert sorted(driver.rows) == list(range(20_000))
    assert 0 < driver.probed <= 0.05 * 20_000
    assert driver.decisions[0].line == (
        "curriculum: probe=64 rows of each slice would be more than probe_share=0.05 of the 20,000 rows of this pass; "
        "campus measures 27 rows of each slice"
    )
    few = Driver(rule.open(make_course()), no_answer).train(24)
    assert "campus measures nothing: metrics take turns" in few.decisions[0].line
    assert few.decisions[0].urgent
    assert len({decision.numbers.get("curriculum/metric") for decision in few.decisions[1:]}) == 3


def test_campus_with_a_small_budget_measures_each_slice_once_and_takes_the_easiest_as_known():
    course, random = make_course(), np.random.default_rng(3)
    driver = Driver(Campus(metrics=METRICS, probe_share=0.5).open(course), lambda probe, step: random.random())
    driver.train(24)
    first, *chosen = driver.decisions
    assert first.line.endswith("of the 97 rows of this pass; campus measures 2 rows of each slice, once")
    assert not first.urgent
    assert 0 < driver.probed <= 0.5 * ROWS
    names, waiting = list(METRICS), {}
    for decision in chosen:
        told = {
            name: decision.numbers[f"curriculum/ppl_{name}"]
            for name in names
            if f"curriculum/ppl_{name}" in decision.numbers
        }
        taken = names[int(decision.numbers["curriculum/metric"])]
        if told:
            assert told[taken] == min(told.values())
        assert all(told[name] == value for name, value in waiting.items() if name in told)
        waiting = {name: value for name, value in told.items() if name != taken}


def test_campus_by_chance_takes_easy_slices_more_often():
    schedule = Campus(metrics=METRICS, mode="softmax", temperature=0.5).open(make_course())
    assert isinstance(schedule, CampusSchedule)
    counts = np.zeros(3)
    for number in range(2000):
        schedule.choices = number
        counts[schedule._choose([0.0, 0.5, 1.0])] += 1
    shares = np.exp([0.0, -1.0, -2.0])
    expected = 2000 * shares / shares.sum()
    assert ((counts - expected) ** 2 / expected).sum() < 13.8  # chi-square, 2 degrees of freedom, p = 0.001


def test_a_slice_that_is_not_finite_is_taken_last():
    answers = iter([float("nan"), 2.0, float("inf")] + [1.0] * 99)
    rule = Campus(metrics=METRICS, probe_share=None)
    driver = Driver(rule.open(make_course()), lambda probe, step: next(answers), batch=1).train(1)
    assert driver.decisions[0].numbers["curriculum/metric"] == 1.0
    assert driver.decisions[0].numbers["curriculum/ppl_two"] == pytest.approx(np.exp(2))


def test_replayed_rows_are_a_share_and_come_from_earlier_slices():
    driver = Driver(Campus(metrics=METRICS, replay=0.25).open(make_course()), no_answer, batch=1).train(135)
    new = [row for at, row in enumerate(driver.rows) if row not in driver.rows[:at]]
    assert sorted(new) == list(range(ROWS))
    last = driver.rows.index(new[-1]) + 1
    assert 0.15 < 1 - ROWS / last < 0.27  # the first slice has nothing to replay


def test_sorted_rows_rise_and_anti_sorted_ones_fall():
    up = Driver(SortedOrder().open(make_course()), no_answer).train(24)
    down = Driver(SortedOrder(harder_first=True).open(make_course()), no_answer).train(24)
    assert (np.diff(SCORES["one"][up.rows]) >= 0).all()
    assert (np.diff(SCORES["one"][down.rows]) <= 0).all()
    first, last = (driver.schedule.measure_difficulty(np.arange(4)) for driver in (up, down))
    assert first is not None
    assert last is not None
    assert first < 0.05 < 0.95 < last


def test_stages_move_as_the_gate_says():
    accuracies = [0.5, 0.9, 0.9, 0.9, 0.95, 0.9, 0.9, 0.9, 0.9, 0.9, 0.3, 0.9, 0.2, 0.9, 0.9, 0.6, 0.55, 0.3]

    def answer(probe: Any, step: int) -> float:
        return accuracies[step - 1]

    gate = CompetenceGate(threshold=0.8, patience=2, demote=0.1, max_steps=10_000)
    driver = Driver(Stages(levels=3, every=1, gate=gate, probe_share=None).open(make_course()), answer)
    driver.train(len(accuracies) + 1)
    levels = [int(decision.numbers["curriculum/level"]) for decision in driver.decisions][1:]
    assert levels == reference.stages(accuracies, 3, 0.8, 2, 0.1)
    assert {1, 2, 3} <= set(levels)
    lines = " ".join(decision.line for decision in driver.decisions)
    assert "level 1 mastered at step" in lines
    assert "back to level 1 at step" in lines


def test_a_level_holds_its_rows_and_with_cumulative_the_easier_ones():
    for cumulative in (True, False):
        gate = CompetenceGate(threshold=1.0, max_steps=10)
        rule = Stages(levels=3, every=100, gate=gate, cumulative=cumulative, probe_share=None)
        driver = Driver(rule.open(make_course()), no_answer).train(30)
        ranks = np.argsort(np.argsort(SCORES["one"], kind="stable"))
        level = ranks * 3 // ROWS
        for number in range(3):
            rows = level[driver.rows[number * 40 : number * 40 + 40]]
            assert rows.max() == number, "a decision of a step came too late, or too early"
            assert rows.min() == (0 if cumulative else number)


def test_a_threshold_that_is_never_reached_is_told_and_the_next_level_begins():
    rule = Stages(levels=2, every=4, probe_share=None)
    driver = Driver(rule.open(make_course()), lambda probe, step: 0.25, steps=20).train(20)
    told = [decision for decision in driver.decisions if decision.urgent]
    assert [decision.step for decision in told] == [10]
    assert told[0].line == (
        "curriculum: level 1 was left after 10 steps, its threshold=0.8 never reached (competence at most 0.250); a "
        "lower gate.threshold or a larger gate.max_steps would wait for it"
    )


def test_measurements_of_a_level_are_of_its_validation_rows():
    asked: list[Any] = []
    rule = Stages(levels=4, every=2, probe=5, gate=CompetenceGate(patience=1), probe_share=None)
    Driver(rule.open(make_course()), lambda probe, step: asked.append(probe) or 1.0).train(9)
    assert [probe.side for probe in asked] == ["val"] * 4
    assert [set((probe.ids * 4 // 40).tolist()) for probe in asked] == [{0}, {1}, {2}, {3}]
    assert all(len(probe.ids) == 5 for probe in asked)


PACINGS = [CampusPacing(), CampusPacing(first=0.2, p=3.0), LinearPacing(), SqrtPacing(), SqrtPacing(p=5.0), BabySteps()]


@pytest.mark.parametrize("pacing", PACINGS, ids=str)
@pytest.mark.parametrize("steps", [1, 2, 8, 50])
def test_every_pacing_opens_all_rows_and_takes_none_back(pacing, steps):
    shares = [pacing.compute_share(step, steps) for step in range(steps + 1)]
    assert shares[0] == 0.0
    assert shares[-1] == 1.0
    assert all(before <= after for before, after in itertools.pairwise(shares))
    edges = pacing.cut_edges(1000, steps)
    assert (edges[0], edges[-1], len(edges)) == (0, 1000, steps + 1)


def test_pacings_are_their_formulas():
    for step in range(9):
        assert CampusPacing().compute_share(step, 8) == pytest.approx(reference.campus_scope(step, 8, 0.01, 2), 1e-12)
        if 0 < step < 8:
            linear, root = LinearPacing().compute_share(step, 8), SqrtPacing(p=3.0).compute_share(step, 8)
            assert linear == pytest.approx(reference.linear_competence(step, 8, 0.01), rel=1e-12)
            assert root == pytest.approx(reference.root_competence(step, 8, 0.01, 3), rel=1e-12)
    assert [BabySteps(buckets=2).compute_share(step, 8) for step in (1, 4, 5, 8)] == [0.5, 0.5, 1.0, 1.0]
    assert CampusPacing().compute_share(5, 8) == 2**-3 + 0.01  # the algebra of the paper's formula


def test_a_tape_reads_what_was_written_and_forgets_what_is_far_behind():
    tape = Tape()
    tape.begin(10)
    tape.append(np.arange(5))
    tape.append(np.arange(100, 103))
    assert tape.read(np.array([10, 14, 15, 17])).tolist() == [0, 4, 100, 102]
    tape.cut(13)
    tape.append(np.array([7]))
    assert (tape.read(np.array([12, 13])).tolist(), tape.end) == ([2, 7], 14)
    with pytest.raises(AssertionError, match="positions 14 to 14 asked of"):
        tape.read(np.array([14]))
    tape.forget(10_000_000)
    assert tape.read(np.array([13])).tolist() == [7]
    other = Tape()
    other.load(tape.state())
    assert other.read(np.array([13])).tolist() == [7]


def test_draws_depend_on_their_purpose_and_number_alone():
    one = shuffle_numbers(50, seed=1, purpose=2, number=3)
    assert sorted(one.tolist()) == list(range(50))
    assert shuffle_numbers(50, seed=1, purpose=2, number=3, take=4).tolist() == one[:4].tolist()
    assert shuffle_numbers(50, seed=1, purpose=3, number=3).tolist() != one.tolist()
    assert shuffle_numbers(0, seed=1, purpose=2, number=3).tolist() == []
    draws = [draw_uniform(seed=4, purpose=1, number=number) for number in range(2000)]
    assert 0.47 < np.mean(draws) < 0.53
    assert 0 <= min(draws) < max(draws) < 1


BAD: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "no metric": (lambda: Campus(metrics={"a": None}), ConfigError, r"^metrics is empty; campus sorts by at least one"),
    "stages by loss": (lambda: Stages(metric=ModelLoss()), ConfigError, r"^metric: stages sorts once, before training"),
    "few rows": (lambda: Stages().open(make_course(3)), DataError, r"^levels=5 of 3 training rows: .* fewer levels$"),
    "no probe": (lambda: Stages(every=1).check_step(4), ConfigError, r"^probe_share=0.05 of the 4 rows .* every=1"),
    "threshold": (lambda: CompetenceGate(threshold=1.2), ConfigError, r"^threshold must be in \[0, 1\], got 1.2"),
    "pacing": (lambda: CampusPacing(p=0.5), ConfigError, r"^p must be a finite number >= 1, got 0.5"),
    "level": (lambda: CompressionRatio(level=0), ConfigError, r"^level=0 must be in 1 .. 9; 6 is usual"),
    "mtld": (lambda: MTLD(threshold=1.0), ConfigError, r"^threshold=1.0 must lie between 0 and 1; the paper has 0.72"),
    "replay": (lambda: Campus(replay=1.0), ConfigError, r"^replay must be in \[0, 1\), got 1.0"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_settings_are_refused(name):
    make, kind, message = BAD[name]
    with pytest.raises(kind, match=message):
        make()


def test_a_random_order_asks_for_nothing():
    assert not RandomOrder().orders
    assert UnigramNLL().of_model is False
