"""The numbers of a score matrix: by hand, and as Avalanche and Mammoth compute them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from aptlab.continual.metrics import compute_scores
from aptlab.errors import AptlabError

ORACLES = json.loads(Path(__file__).with_name("oracles.json").read_text())
named = pytest.mark.parametrize("case", ORACLES["matrices"], ids=lambda case: case["name"])


def test_there_are_three_matrices_with_where_their_numbers_are_from():
    assert len(ORACLES["matrices"]) == 3
    assert (ORACLES["avalanche-lib"], ORACLES["mammoth"][:8]) == ("0.6.0", "e75a491c")


@named
def test_avalanche_computes_the_same(case):
    found = compute_scores(case["scores"], case["baseline"])
    mine = {"forgetting": found.forgetting_last, "bwt": found.bwt, "fwt": found.fwt}
    assert mine == pytest.approx(case["avalanche"], abs=1e-12)


@named
def test_mammoth_computes_the_same(case):
    found = compute_scores(case["scores"], case["baseline"])
    mine = {"forgetting": found.forgetting_max, "bwt": found.bwt, "fwt": found.fwt}
    assert mine == pytest.approx(case["mammoth"], abs=1e-12)


def test_the_three_forgettings_differ_where_a_task_goes_on_to_improve():
    case = next(case for case in ORACLES["matrices"] if case["name"] == "improves")
    found = compute_scores(case["scores"])
    # Task 1: 0.80, 0.84, 0.90; task 2: 0.30, 0.78, 0.75.
    assert found.forgetting_last == pytest.approx(((0.80 - 0.90) + (0.78 - 0.75)) / 2)
    assert found.forgetting_max == pytest.approx((0.0 + (0.78 - 0.75)) / 2)
    assert found.forgetting_chaudhry == pytest.approx(((0.84 - 0.90) + (0.78 - 0.75)) / 2)
    assert found.bwt == pytest.approx(-found.forgetting_last)


def test_by_hand():
    found = compute_scores([[0.9, 0.2], [0.5, 0.7]], [0.1, 0.15])
    assert found.plain() == pytest.approx(
        {
            "acc": 0.6,
            "bwt": -0.4,
            "fwt": 0.2 - 0.15,
            "forgetting_last": 0.4,
            "forgetting_max": 0.4,
            "forgetting_chaudhry": 0.4,
            "average_anytime": (0.9 + 0.6) / 2,
        }
    )


def test_a_triangle_has_all_but_forward_transfer():
    whole = [[-1.0, -3.0, -3.5], [-2.0, -1.5, -3.2], [-2.5, -2.0, -1.2]]
    triangle = [row[: i + 1] for i, row in enumerate(whole)]
    full, part = compute_scores(whole, [-5.0] * 3).plain(), compute_scores(triangle, [-5.0] * 3).plain()
    assert part == full | {"fwt": None}
    assert full["fwt"] == pytest.approx(((-3.0 + 5.0) + (-3.2 + 5.0)) / 2)


def test_one_task_has_nothing_to_forget():
    found = compute_scores([[0.5]], [0.1])
    assert (found.acc, found.average_anytime, found.bwt, found.fwt, found.forgetting_max) == (
        0.5,
        0.5,
        None,
        None,
        None,
    )


@pytest.mark.parametrize(
    ("matrix", "baseline", "told"),
    [
        ([], None, "the score matrix has no row"),
        ([[1.0], [1.0, 2.0], [1.0, 2.0]], None, "row 3 of the score matrix has 2 scores; 3 tasks take 3, or 3"),
        ([[1.0, 1.0], [math.nan, 2.0]], None, "the score on task 1 after task 2 is nan"),
        ([[1.0]], [1.0, 2.0], "the baseline has 2 scores for 1 tasks"),
    ],
)
def test_what_is_no_matrix_is_told(matrix, baseline, told):
    with pytest.raises(AptlabError, match=told):
        compute_scores(matrix, baseline)
