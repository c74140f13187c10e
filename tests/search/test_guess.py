from __future__ import annotations

import math
import random

import numpy as np
import pytest

from aptlab.search.surrogate import compute_matern_kernel, predict_scores, select_promising
from tests.search.problem import GOAL, SPACE


def distance(factors) -> float:
    return sum(math.log(f / g) ** 2 for f, g in zip(factors, GOAL, strict=True))


def some(count: int, seed: int) -> list:
    rng = random.Random(seed)
    near = SPACE.nearest(GOAL)
    return [SPACE.factors(SPACE.mutate(SPACE.mutate(near, rng, 0.5), rng, 0.5)) for _ in range(count)]


def test_what_looks_promising_is_better_than_the_average():
    measured, proposals = some(60, 0), some(200, 1)
    chosen = select_promising(proposals, 10, measured, [distance(f) for f in measured])
    best = sorted(map(distance, proposals))
    assert len(chosen) == len(set(chosen)) == 10
    assert np.mean([distance(f) for f in chosen]) < best[len(best) // 4]


def test_with_too_little_known_the_first_proposals_are_taken():
    proposals = some(20, 1)
    assert select_promising(proposals, 3, some(5, 0), [1.0] * 5) == proposals[:3]
    assert select_promising(proposals[:2], 3, some(50, 0), [1.0] * 50) == proposals[:2]


def test_measured_places_are_predicted_almost_exactly_and_far_ones_are_uncertain():
    x = np.linspace(0, 4, 12)[:, None]
    y = np.sin(x[:, 0])
    mean, deviation = predict_scores(x, y, np.array([[x[5, 0]], [40.0]]))
    assert mean[0] == pytest.approx(y[5], abs=0.05)
    assert deviation[0] < 0.1 * deviation[1]
    assert deviation[1] == pytest.approx(y.std(), rel=1e-3)


def test_the_kernel_is_that_of_the_book():
    """Rasmussen and Williams, eq. 4.17, for nu = 5/2."""
    r = 0.7
    expected = (1 + math.sqrt(5) * r + 5 * r * r / 3) * math.exp(-math.sqrt(5) * r)
    assert compute_matern_kernel(np.array([r]))[0] == pytest.approx(expected)
    assert compute_matern_kernel(np.array([0.0]))[0] == 1.0


def test_scores_that_are_infinite_are_left_out():
    measured = some(30, 0)
    scores = [distance(f) for f in measured]
    with_broken = select_promising(some(50, 1), 5, [*measured, *some(3, 2)], [*scores, math.inf, math.inf, math.inf])
    assert with_broken == select_promising(some(50, 1), 5, measured, scores)
