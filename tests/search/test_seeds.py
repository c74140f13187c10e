from __future__ import annotations

import math

import pytest

from aptlab.nn.positions.rope import YaRN
from aptlab.search.seeds import (
    build_v1_space,
    build_v2_seeds,
    build_v2_space,
    compute_divisors,
    compute_published_factors,
    list_critical_pairs,
)


@pytest.mark.parametrize(
    ("base", "pairs", "length", "first", "last"),
    [(10_000, 48, 2048, 19, 31), (500_000, 64, 8192, 24, 35)],
    ids=["Phi3-mini", "LLaMA3-8B"],
)
def test_critical_pairs_are_those_of_the_paper(base, pairs, length, first, last):
    """LongRoPE2, section 3: candidates 19 … 31 and 24 … 35; the real ones found were 25 and 30."""
    found = list_critical_pairs(base=base, pairs=pairs, length=length)
    assert (found[0], found[-1]) == (first, last)


def test_the_theoretical_critical_pair_is_the_first_with_less_than_one_rotation():
    last = list_critical_pairs(base=500_000, pairs=64, length=8192)[-1]
    rotations = [8192 * 500_000 ** (-i / 64) / (2 * math.pi) for i in range(64)]
    assert rotations[last - 1] > 1 > rotations[last]


def test_tiny_models_have_a_critical_pair_inside_the_head():
    assert list(list_critical_pairs(base=10_000, pairs=8, length=8)) == [1]


def test_published_factors_are_those_of_the_rules():
    known = compute_published_factors(base=10_000, head_dim=32, original_len=256, scale=8.0)
    assert known["linear"] == pytest.approx([8.0] * 16)
    assert known["ntk"][0] == pytest.approx(1)
    assert known["ntk"][-1] == pytest.approx(8)
    yarn = YaRN(factor=8.0, original_len=256)
    assert known["yarn"] == compute_divisors(yarn, 10_000, 32)
    assert known["yarn"][-1] == pytest.approx(8)


def test_version_one_holds_every_published_rule():
    space = build_v1_space(pairs=16, scale=8.0, step=0.01)
    for factors in compute_published_factors(base=10_000, head_dim=32, original_len=256, scale=8.0).values():
        assert space.factors(space.nearest(factors)) == pytest.approx(factors, abs=0.0051)


def test_version_two_starts_with_eight_stretches_of_the_critical_pair():
    space = build_v2_space(30, pairs=64, scale=32.0, step=0.01)
    seeds = build_v2_seeds(space)
    assert [space.factors(seed)[30] for seed in seeds] == pytest.approx([32 * (1 + 0.1 * k) for k in range(8)])
    assert all(space.legal(seed) for seed in seeds)
    assert all(32 <= f <= 64 for seed in seeds for f in space.factors(seed)[30:])
