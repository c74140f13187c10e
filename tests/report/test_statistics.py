"""Intervals against scipy and against numbers from the tables of Student's t."""

from __future__ import annotations

import math
import random

import pytest

from aptlab.report.statistics import ConfidenceInterval, compute_interval, compute_paired_interval, compute_t_quantile


@pytest.mark.parametrize(("degrees", "expected"), [(1, 12.706), (2, 4.303), (4, 2.776), (9, 2.262), (30, 2.042)])
def test_the_quantile_is_that_of_the_printed_table(degrees, expected):
    assert compute_t_quantile(degrees) == pytest.approx(expected, abs=6e-4)


@pytest.mark.parametrize("n", [2, 3, 7])
def test_the_interval_is_that_of_scipy(n):
    from scipy import stats

    draw = random.Random(n)
    values = [draw.gauss(1.5, 0.1) for _ in range(n)]
    found = compute_interval(values)
    assert found is not None
    low, high = stats.t.interval(0.95, n - 1, loc=sum(values) / n, scale=stats.sem(values))
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-12)


def test_by_hand():
    found = compute_interval([1.0, 2.0, 3.0])  # s = 1, t = 4.303, half = 4.303 / sqrt(3)
    assert found == ConfidenceInterval(2.0, pytest.approx(2.4841, abs=1e-4), 3)


def test_one_value_has_no_interval_and_overlaps_everything():
    one = compute_interval([1.5])
    assert one == ConfidenceInterval(1.5, None, 1)
    assert one is not None
    assert one.overlaps(ConfidenceInterval(99.0, 0.1, 3))


def test_values_that_are_not_finite_are_counted_and_left_out():
    assert compute_interval([1.0, math.nan, None, math.inf]) == ConfidenceInterval(1.0, None, 1, missing=3)
    assert compute_interval([math.nan]) is None
    assert compute_interval([]) is None


def test_pairing_takes_out_the_noise_that_seeds_share():
    noise = {0: 0.5, 1: -0.4, 2: 0.1}
    first = {seed: 1.0 + value for seed, value in noise.items()}
    second = {seed: 1.1 + value for seed, value in noise.items()} | {9: 50.0}
    found = compute_paired_interval(second, first)
    assert found is not None
    assert found.n == 3
    assert found.mean == pytest.approx(0.1)
    assert found.half == pytest.approx(0.0, abs=1e-9)
    assert compute_paired_interval({0: 1.0}, {1: 1.0}) is None


def test_overlap():
    assert ConfidenceInterval(1.0, 0.1, 3).overlaps(ConfidenceInterval(1.15, 0.1, 3))
    assert not ConfidenceInterval(1.0, 0.1, 3).overlaps(ConfidenceInterval(1.3, 0.1, 3))
