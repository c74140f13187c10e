"""Schedules against the equations they cite."""

from __future__ import annotations

import itertools
import math

import pytest

from aptlab.errors import ConfigError
from aptlab.optim import WSD, Cosine


def reference_cosine(step: int, total: int, warmup: float, final: float) -> float:
    rising = round(warmup * total)
    if step < rising:
        return (step + 1) / rising
    return final + 0.5 * (1 - final) * (1 + math.cos(math.pi * (step - rising) / (total - 1 - rising)))


@pytest.mark.parametrize(("warmup", "final"), [(0.0, 0.0), (0.05, 0.1), (0.5, 1.0)])
def test_cosine_equals_the_equation_at_every_step(warmup, final):
    schedule = Cosine(warmup=warmup, final=final)
    for step in range(100):
        assert schedule.factor(step, 100) == pytest.approx(reference_cosine(step, 100, warmup, final), abs=1e-15)


@pytest.mark.parametrize("schedule", [Cosine(), WSD()])
def test_a_schedule_starts_above_zero_peaks_at_one_and_ends_at_final(schedule):
    factors = [schedule.factor(step, 400) for step in range(400)]
    assert factors[0] == pytest.approx(1 / 20)
    assert max(factors) == 1.0
    assert factors[-1] == pytest.approx(schedule.final)
    assert all(0 <= factor <= 1 for factor in factors)


@pytest.mark.parametrize("schedule", [Cosine(), WSD()])
def test_steps_beyond_the_end_stay_at_the_last_rate(schedule):
    assert schedule.factor(1000, 400) == pytest.approx(schedule.final)


def test_wsd_is_constant_between_warm_up_and_decay_and_linear_after():
    factors = [WSD(warmup=0.1, decay=0.2, final=0.0).factor(step, 101) for step in range(101)]
    assert set(factors[10:81]) == {1.0}
    steps = [b - a for a, b in itertools.pairwise(factors[80:])]
    assert steps == pytest.approx([-1 / 20] * 20)


@pytest.mark.parametrize("schedule", [Cosine(), WSD()])
@pytest.mark.parametrize("total", [1, 2, 3])
def test_very_short_runs_have_finite_rates(schedule, total):
    assert all(0 <= schedule.factor(step, total) <= 1 for step in range(total))


def test_shares_that_exceed_the_run_are_refused():
    with pytest.raises(ConfigError, match=r"^warmup=0.5 and decay=0.6 .* add up to at most 1"):
        WSD(warmup=0.5, decay=0.6)


def test_a_share_above_one_is_refused():
    with pytest.raises(ConfigError, match=r"^warmup must be in \[0, 1\), got 1.5"):
        Cosine(warmup=1.5)
