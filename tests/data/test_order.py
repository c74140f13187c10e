"""The order of samples is a permutation, and depends on nothing but seed, epoch and index."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aptlab.data.rows.order import permute_indices


def whole(count, seed=0, epoch=0):
    return permute_indices(np.arange(count), count=count, seed=seed, epoch=epoch)


@pytest.mark.parametrize("count", [*range(1, 70), 255, 256, 257, 1023, 1024, 1025, 65_537, 100_003])
def test_order_is_a_permutation(count):
    assert np.array_equal(np.sort(whole(count)), np.arange(count))


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 3000), st.integers(-(2**40), 2**63), st.integers(0, 2**40))
def test_order_is_a_permutation_for_any_seed_and_epoch(count, seed, epoch):
    assert np.array_equal(np.sort(whole(count, seed, epoch)), np.arange(count))


def test_any_part_equals_that_part_of_the_whole():
    for places in (
        np.array([[299, 0], [17, 200]]),
        np.arange(300).reshape(30, 10)[::-2],
        np.array(5),
        np.array([], int),
    ):
        assert np.array_equal(permute_indices(places, count=300, seed=3, epoch=2), whole(300, 3, 2)[places])


def test_seeds_and_epochs_give_different_orders():
    orders = [tuple(whole(500, seed, epoch)) for seed in range(20) for epoch in range(20)]
    assert len(set(orders)) == 400


def test_a_huge_corpus_needs_no_memory_and_stays_in_range():
    places = np.array([0, 1, 2**40 - 1, 2**40 + 6])
    values = permute_indices(places, count=2**40 + 7, seed=1, epoch=0)
    assert len(set(values.tolist())) == 4
    assert 0 <= values.min() <= values.max() < 2**40 + 7


@pytest.mark.parametrize("count", [5, 40, 257])
def test_every_place_gets_every_value_about_equally_often(count):
    """Chi-squared over `count` values at place 0 and at the last place of 2000 epochs; 6 sigma."""
    values = np.array([permute_indices(np.array([0, count - 1]), count=count, seed=7, epoch=e) for e in range(2000)])
    for column in values.T:
        expected = len(column) / count
        chi = ((np.bincount(column, minlength=count) - expected) ** 2 / expected).sum()
        assert abs(chi - (count - 1)) < 6 * np.sqrt(2 * (count - 1))


def test_neighbours_are_scattered():
    """Neighbouring places are as far apart as in a random permutation: n/3 on average."""
    count = 20_000
    steps = np.abs(np.diff(whole(count, seed=5)))
    assert steps.mean() == pytest.approx(count / 3, rel=0.03)
    assert (steps == 1).sum() < 12


def test_order_is_recorded():
    """A change of this list changes every run that is resumed across it."""
    assert whole(12, seed=1, epoch=0).tolist() == [10, 8, 1, 6, 11, 0, 2, 9, 5, 3, 7, 4]
