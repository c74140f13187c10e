from __future__ import annotations

import random

import pytest

from aptlab.errors import ConfigError
from aptlab.search.space import SearchSpace

FALLING_NEVER = SearchSpace(pairs=16, low=1.0, high=5.0)
RISING = SearchSpace(pairs=16, low=4.0, high=8.0, first=6, strict=True, rise=4.0)


@pytest.mark.parametrize("space", [FALLING_NEVER, RISING], ids=["v1", "v2"])
def test_children_of_legal_genomes_are_legal_for_a_thousand_generations(space):
    rng = random.Random(0)
    pool = [space.nearest([space.low] * space.pairs), space.nearest([space.high] * space.pairs)]
    for _ in range(1000):
        child = space.cross(space.mutate(rng.choice(pool), rng, 0.3), rng.choice(pool), rng, 0.3)
        assert space.legal(child)
        pool = [*pool[-20:], child]
    assert len(set(pool)) > 10


def test_factors_lie_on_the_grid_between_the_ends():
    genome = RISING.nearest([5.0 + i / 10 for i in range(16)])
    factors = RISING.factors(genome)
    assert factors[6:] == pytest.approx([5.6, 5.7, 5.8, 5.9, 6.0, 6.1, 6.2, 6.3, 6.4, 6.5])
    assert all(round(f, 2) == f for f in factors[6:])


def test_pairs_before_the_critical_one_follow_by_ntk():
    """The published start of LLaMA3-8B: lambda = 21.81 at pair 33 makes 1.0979 of pair 1 (released csv)."""
    space = SearchSpace(pairs=64, low=16.0, high=32.0, first=33)
    factors = space.factors(space.nearest([21.81] * 64))
    assert factors[0] == 1.0
    assert factors[1] == pytest.approx(1.0979, abs=1e-4)
    assert factors[33] == pytest.approx(21.81)


def test_the_nearest_genome_of_wishes_outside_is_legal_and_of_a_legal_one_itself():
    rng = random.Random(1)
    for _ in range(200):
        wishes = [rng.uniform(-3, 20) for _ in range(16)]
        for space in (FALLING_NEVER, RISING):
            genome = space.nearest(wishes)
            assert space.legal(genome)
            assert space.nearest(space.factors(genome)) == genome


def test_mutation_draws_only_between_neighbours():
    genome = tuple(range(0, 160, 10))
    rng = random.Random(0)
    for _ in range(200):
        child = FALLING_NEVER.mutate(genome, rng, 0.05)
        changed = [i for i in range(16) if child[i] != genome[i]]
        if len(changed) == 1:
            (i,) = changed
            assert (genome[i - 1] if i else 0) <= child[i] <= (genome[i + 1] if i < 15 else FALLING_NEVER.top)


def test_without_probability_nothing_changes():
    genome = FALLING_NEVER.nearest([2.0] * 16)
    other = FALLING_NEVER.nearest([3.0] * 16)
    assert FALLING_NEVER.mutate(genome, random.Random(0), 0.0) == genome
    assert FALLING_NEVER.cross(genome, other, random.Random(0), 0.0) == genome


def test_the_last_pair_rises_by_at_most_four():
    space = SearchSpace(pairs=4, low=16.0, high=32.0, strict=True, rise=4.0)
    assert space.factors(space.nearest([16, 16.01, 17, 32]))[-1] == 21.0
    assert not space.legal((0, 1, 100, 1600))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"step": 1.0}, r"search\.step=1\.0 leaves 5 factors between 4 and 8 for 10 pairs; largest: 0\.4444"),
        ({"first": 16}, r"first=16: the 16 pairs are numbered from 0 to 15"),
    ],
)
def test_a_space_without_room_is_refused(wrong, message):
    with pytest.raises(ConfigError, match=message):
        SearchSpace(**{"pairs": 16, "low": 4.0, "high": 8.0, "first": 6, "strict": True, **wrong})


def test_the_largest_step_named_in_the_message_is_allowed():
    assert SearchSpace(pairs=16, low=4.0, high=8.0, first=6, strict=True, step=0.4444).top >= 9
