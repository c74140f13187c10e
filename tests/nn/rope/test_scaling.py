"""Rules that stretch: interpolation, bases, ramps and critical pairs, against the papers in float64."""

import math

import numpy as np
import pytest
import torch

from aptlab.errors import ConfigError
from aptlab.nn.positions.rope import (
    NTK,
    Dynamic,
    Linear,
    Llama3,
    NTKByParts,
    NTKLiu,
    Standard,
    YaRN,
    YaRNUniform,
    YaRNZones,
    compute_critical_pair,
)
from tests.helpers import assert_agree
from tests.reference import rope as reference
from tests.reference import rope_lengths as lengths
from tests.reference import rope_seeds as seeds

BASES = (10_000.0, 500_000.0)
DIMS = (8, 64, 96, 128)
FACTORS = (1.0, 2.0, 16.0)


def divisors(rule, head_dim):
    return np.array(Standard(base=rule.base).inv_freq(head_dim)) / np.array(rule.inv_freq(head_dim))


every = pytest.mark.parametrize(
    ("base", "factor", "head_dim"), [(b, f, d) for b in BASES for f in FACTORS for d in DIMS], ids=str
)


@every
@pytest.mark.parametrize("length", [256, 4096, 32_768])
def test_ramps_are_the_papers(base, factor, head_dim, length):
    given = {"base": base, "factor": factor, "original_len": length}
    parts = NTKByParts(**given).inv_freq(head_dim)
    assert_agree(parts, reference.by_parts(base, factor, length, 1.0, 32.0, head_dim))
    assert_agree(parts, YaRN(**given, ramp="ratio").inv_freq(head_dim), rel=0)
    four = NTKByParts(**given, alpha=1.0, beta=4.0).inv_freq(head_dim)
    assert_agree(four, reference.llama3(base, factor, 1.0, 4.0, length, head_dim))
    assert_agree(four, Llama3(**given).inv_freq(head_dim), rel=1e-14)
    assert_agree(YaRNZones(**given).inv_freq(head_dim), seeds.zones(base, factor, 32, 64, head_dim))


@every
def test_bases_are_the_papers(base, factor, head_dim):
    assert_agree(NTK(base=base, factor=factor).inv_freq(head_dim), reference.ntk(base, factor, head_dim))
    liu = NTKLiu(base=base, factor=factor, original_len=2048)
    assert liu.scaled_base() == pytest.approx(lengths.liu_base(base, 2048, 2048 * factor), rel=1e-12)
    assert_agree(liu.inv_freq(head_dim), reference.standard(liu.scaled_base(), head_dim))


@pytest.mark.parametrize(
    ("base", "length", "target", "expected"), [(500_000.0, 8192, 131_072, 7.98e7), (10_000.0, 2048, 131_072, 7.49e6)]
)
def test_liu_bases_of_published_models(base, length, target, expected):
    rule = NTKLiu(base=base, original_len=length, factor=None, target_len=target)
    assert rule.scaled_base() == pytest.approx(expected, rel=1e-3)


def test_liu_makes_the_critical_pair_meet_angles_of_training_only():
    """The critical exponent i* solves 2 pi b^(2i/D) = L; with the new base the same pair rotates once in L'."""
    rule = NTKLiu(base=500_000.0, original_len=8192, factor=16.0)
    pair = 64 * math.log(8192 / (2 * math.pi), 500_000.0)
    assert 2 * math.pi * rule.scaled_base() ** (2 * pair / 128) == pytest.approx(131_072, rel=1e-12)


@pytest.mark.parametrize("factor", [1.0, 2.0, 8.0])
@pytest.mark.parametrize("head_dim", [8, 128])
def test_dynamic_bases_follow_the_length_of_each_sequence(factor, head_dim):
    steps = [1, 511, 512, 513, 1024, 4096, 1_000_000]
    for law in ("hf", "paper"):
        rule = Dynamic(base=10_000.0, factor=factor, original_len=512, law=law)
        got = rule.bases(torch.tensor([steps], dtype=torch.float64), head_dim)
        assert got.dtype == torch.float64
        assert got.shape == (1, len(steps))
        if law == "hf":
            expected = [lengths.dynamic_base(10_000.0, factor, 512, length, head_dim) for length in steps]
        else:
            expected = [lengths.dynamic_base_paper(10_000.0, 512, length, head_dim) for length in steps]
        assert_agree(got[0].tolist(), expected)
        assert_agree([rule.base_at(length, head_dim) for length in steps], expected)
        assert got[0, :3].tolist() == [10_000.0] * 3  # exactly the plain rule up to L


def test_dynamic_at_its_own_length_is_ntk():
    """The paper's law at l = s L is NTK scaling by s; transformers' law gets there earlier."""
    paper, hf = (Dynamic(factor=4.0, original_len=512, law=law) for law in ("paper", "hf"))
    assert paper.base_at(2048, 64) == pytest.approx(NTK(factor=4.0).scaled_base(64), rel=1e-14)
    assert hf.base_at(2048, 64) == pytest.approx(NTK(factor=13.0).scaled_base(64), rel=1e-14)


def test_a_seed_called_yarn_is_interpolation():
    """Factor 1 / (alpha beta): 4 for a half and a half; the seeds' own 1.2 and 0.8 shrink the context by 4 %."""
    rule = YaRNUniform(alpha=1.2, beta=0.8)
    assert_agree(rule.inv_freq(128), seeds.uniform(10_000.0, 1.2, 0.8, 128), rel=1e-14)
    assert_agree(YaRNUniform(alpha=0.5, beta=0.5).inv_freq(128), Linear(factor=4.0).inv_freq(128), rel=1e-15)
    np.testing.assert_allclose(divisors(rule, 128), 1 / (1.2 * 0.8), rtol=1e-14)
    np.testing.assert_allclose(divisors(rule, 128), 1.042, atol=5e-4)


@pytest.mark.parametrize("ramp", ["index", "ratio"])
@pytest.mark.parametrize("head_dim", DIMS)
def test_yarn_with_factor_one_is_the_standard_rule(ramp, head_dim):
    rule = YaRN(factor=1.0, ramp=ramp)
    assert_agree(rule.inv_freq(head_dim), Standard().inv_freq(head_dim), rel=1e-15)
    assert rule.temperature == 1.0


def test_scout_divides_the_pairs_from_35_on():
    """Llama 4 Scout: factor 16, low = high = 1, so the ramp is a step at one rotation in 8192 tokens."""
    found = divisors(Llama3(factor=16.0, low=1.0, high=1.0), 128)
    assert np.flatnonzero(found > 1 + 1e-12)[0] == 35
    np.testing.assert_allclose(found[35:], 16.0, rtol=1e-12)
    np.testing.assert_allclose(found[:35], 1.0, rtol=1e-12)


def test_zones_are_up_to_half_a_weight_away_from_yarn_in_llama_2():
    kept = YaRN(factor=16.0).keep(128), YaRNZones(factor=16.0).keep(128)
    assert max(abs(a - b) for a, b in zip(*kept)) == pytest.approx(0.54, abs=0.005)


@pytest.mark.parametrize(
    ("base", "length", "head_dim", "pair"),
    [(10_000.0, 2048, 96, 31), (500_000.0, 8192, 128, 35), (10_000.0, 4096, 128, 46)],
    ids=["Phi3-mini", "LLaMA3-8B", "Llama 2"],
)
def test_theoretical_critical_pairs_of_published_models(base, length, head_dim, pair):
    assert compute_critical_pair(base, length, head_dim) == pair
    assert lengths.critical_pair(base, length, head_dim) == pair
    rotations = [length * theta / (2 * math.pi) for theta in Standard(base=base).inv_freq(head_dim)]
    assert rotations[pair - 1] >= 1 > rotations[pair]


BY_PARTS = [
    YaRN(base=500_000.0, factor=16.0, original_len=8192, critical_dim=30),
    YaRN(base=500_000.0, factor=16.0, original_len=8192, critical_dim=30, truncate=False),
    YaRN(base=500_000.0, factor=16.0, original_len=8192, critical_dim=30, ramp="ratio"),
    YaRN(base=500_000.0, factor=16.0, original_len=8192, critical_dim=5),
    YaRN(base=500_000.0, factor=16.0, original_len=8192, critical_dim=60),
    NTKByParts(base=500_000.0, factor=16.0, original_len=8192, critical_dim=30),
    NTKByParts(base=500_000.0, factor=16.0, original_len=8192, critical_dim=3),
    Llama3(factor=16.0, critical_dim=30),
    Llama3(factor=16.0, critical_dim=50),
    Llama3(factor=16.0, critical_dim=30, low=1.0, high=1.0),
    YaRNZones(base=500_000.0, factor=16.0, original_len=8192, critical_dim=30),
    YaRNZones(base=500_000.0, factor=16.0, original_len=8192, critical_dim=9),
]


@pytest.mark.parametrize("rule", BY_PARTS, ids=repr)
def test_from_the_critical_pair_on_every_pair_is_divided_by_factor_and_none_before(rule):
    found, critical = divisors(rule, 128), rule.critical_dim
    np.testing.assert_allclose(found[critical:], 16.0, rtol=1e-12)
    assert found[critical - 1] < 16.0 * (1 - 1e-3)
    assert np.all(np.diff(found) >= -1e-12)
    assert found[0] == pytest.approx(1.0, rel=1e-12)


def test_yarn_rcd_keeps_the_start_of_the_ramp_and_moves_its_end():
    """YaRN-rcd of LongRoPE2, table 6: the index ramp of LLaMA3-8B from pair 18 now ends at 30 instead of 35."""
    plain, moved = (YaRN(base=500_000.0, factor=16.0, original_len=8192, critical_dim=c).keep(128) for c in (None, 30))
    assert [keep.index(0.0) for keep in (plain, moved)] == [35, 30]
    assert [max(i for i, k in enumerate(keep) if k == 1.0) for keep in (plain, moved)] == [18, 18]
    assert moved[24] == pytest.approx(0.5)
    same = YaRN(base=500_000.0, factor=16.0, original_len=8192, critical_dim=35)
    assert_agree(same.keep(128), plain, rel=0)


@pytest.mark.parametrize("critical", [1, 30, 46, 63])
def test_ntk_rcd_divides_the_critical_pair_by_exactly_the_factor(critical):
    rule = NTK(factor=16.0, critical_dim=critical)
    assert_agree(rule.inv_freq(128), lengths.ntk_through(10_000.0, 16.0, critical, 128))
    assert divisors(rule, 128)[critical] == pytest.approx(16.0, rel=1e-12)
    if critical == 63:
        assert_agree(rule.inv_freq(128), NTK(factor=16.0).inv_freq(128), rel=1e-13)


BAD = [
    (lambda: YaRN(critical_dim=64).inv_freq(128), r"^critical_dim=64 .* with head_dim=128 use 1 to 63"),
    (lambda: NTK(critical_dim=64).inv_freq(128), r"^critical_dim=64 .* with head_dim=128 use 1 to 63"),
    (lambda: Llama3(critical_dim=9).inv_freq(16), r"^critical_dim=9 .* with head_dim=16 use 1 to 7"),
    (lambda: YaRNZones(critical_dim=8).inv_freq(16), r"^critical_dim=8 .* with head_dim=16 use 1 to 7"),
    (lambda: NTKByParts(critical_dim=0), r"^critical_dim must be a finite number >= 1, got 0"),
    (lambda: NTKByParts(alpha=32.0, beta=1.0), r"^beta=1\.0 must be larger than alpha=32\.0; published: 32"),
    (
        lambda: NTKLiu(original_len=6).inv_freq(8),
        r"^original_len=6 is below 7 tokens \(2 pi\); give the trained context",
    ),
    (lambda: Dynamic(law="paper2"), r"^law='paper2'; allowed: hf, paper"),
    (lambda: Dynamic().inv_freq(2), r"^head_dim=2 is below 4, and the exponent is D/\(D-2\); use a wider head"),
    (lambda: YaRNZones(zones=(64, 32)), r"^zones=\[64, 32\] must be two rising dims, such as \[32, 64\]"),
    (lambda: YaRNZones(zones=(1, 2, 3)), r"^zones=\[1, 2, 3\] must be two rising dims"),
    (
        lambda: YaRNZones(temperature_law="cosine"),
        r"^temperature_law='cosine'; allowed: none, yarn, su, apt_sqrt, apt_sqrt_plus1",
    ),
    (lambda: Standard(layout="neox"), r"^layout='neox'; allowed: half, interleaved"),
    (lambda: Standard(temperature_on="q"), r"^temperature_on='q'; allowed: logits, cos_sin"),
    (lambda: NTKLiu().inv_freq(63), r"^head_dim=63 is not a positive even number"),
    (lambda: Dynamic().inv_freq(63), r"^head_dim=63 is not a positive even number"),
]


@pytest.mark.parametrize(("make", "message"), BAD, ids=[message for _, message in BAD])
def test_values_without_meaning_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
