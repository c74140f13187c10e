"""Factors on the logits: laws, published numbers, and what overrides them."""

import math

import pytest

from aptlab.errors import ConfigError
from aptlab.nn.positions.rope import LongRoPE, LongRoPE2, YaRN, YaRNZones
from aptlab.nn.positions.rope.temperature import TEMPERATURE_LAWS
from tests.reference import rope as reference
from tests.reference import rope_lengths as lengths
from tests.reference import rope_seeds as seeds

FACTORS = (1.0, 1.5, 4.0, 32.0)


@pytest.mark.parametrize("factor", FACTORS)
def test_laws_are_the_published_ones(factor):
    def of(law, **given):
        return YaRN(factor=factor, original_len=4096, temperature_law=law, **given).temperature

    assert of("none") == 1.0
    assert of("yarn") == pytest.approx(reference.yarn_logit_factor(factor), rel=1e-14)
    assert of("su") == pytest.approx(lengths.su(factor, 4096) ** 2, rel=1e-14)
    assert of("apt_sqrt") == pytest.approx(seeds.apt_sqrt(factor) ** 2, rel=1e-14)
    assert of("apt_sqrt_plus1") == pytest.approx((1 + seeds.apt_sqrt(factor)) ** 2, rel=1e-14)
    for law in TEMPERATURE_LAWS:
        assert of(law, attention_factor=1.25) == 1.5625


@pytest.mark.parametrize(("mscale", "all_dim"), [(1.0, 1.0), (0.707, 0.707), (0.707, 0.0), (1.0, 0.5)])
@pytest.mark.parametrize("factor", FACTORS)
def test_deepseeks_two_factors_are_one_where_the_whole_head_rotates(factor, mscale, all_dim):
    """V3 has 1, 1; V2 has 0.707, 0.707 (DeepSeek-AI 2024, arXiv:2405.04434): mscale_all_dim cancels."""
    rule = YaRN(factor=factor, mscale=mscale)
    assert rule.temperature == pytest.approx(lengths.deepseek_logits(factor, mscale, all_dim), rel=1e-14)


def test_published_numbers():
    assert math.sqrt(YaRN(factor=4.0).temperature) == pytest.approx(1.1386, abs=5e-5)
    assert math.sqrt(LongRoPE(factor=32.0, original_len=4096).temperature) == pytest.approx(1.1902, abs=5e-5)  # Phi-3
    assert math.sqrt(YaRN(factor=4.0, temperature_law="apt_sqrt").temperature) == pytest.approx(0.1005, abs=5e-5)
    assert YaRN(factor=4.0, temperature_law="apt_sqrt").temperature == pytest.approx(0.0101, abs=5e-5)


def test_the_seeds_temperature_hardly_knows_the_factor():
    """ln s is divided by 128: from s = 1 to 1024 the intended form moves by less than half a percent."""
    low, high = (YaRN(factor=f, temperature_law="apt_sqrt_plus1").temperature for f in (1.0, 1024.0))
    assert low == pytest.approx(1.21, rel=1e-12)
    assert 1 < high / low < 1.006


def test_zones_take_laws_too():
    assert YaRNZones(factor=4.0).temperature == 1.0
    assert YaRNZones(factor=4.0, temperature_law="yarn").temperature == YaRN(factor=4.0).temperature


def test_longrope_sharpens_all_lengths_and_longrope2_long_ones():
    for rule in (LongRoPE(factor=32.0), LongRoPE(factor=32.0, retained=8)):
        assert set(rule.temperatures()) == {rule.temperature}
        assert len(rule.temperatures()) == len(rule.regimes(64))
        assert rule.temperature == pytest.approx(lengths.su(32.0, 4096) ** 2, rel=1e-14)
    assert LongRoPE(factor=32.0, attention_factor=1.5).temperature == 2.25
    assert LongRoPE2(factor=32.0).temperatures() == (1.0, 1.0)
    assert LongRoPE2(factor=32.0, attention_factor=1.5).temperatures() == (1.0, 2.25)


BAD = [
    (
        lambda: YaRN(temperature_law="cosine"),
        r"^temperature_law='cosine'; allowed: none, yarn, su, apt_sqrt, apt_sqrt_plus1",
    ),
    (lambda: YaRN(attention_factor=0.0), r"^attention_factor must be a finite number > 0, got 0"),
    (lambda: YaRN(mscale=-1.0), r"^mscale must be a finite number > 0, got -1"),
    (lambda: LongRoPE(attention_factor=-1.0), r"^attention_factor must be a finite number > 0, got -1"),
]


@pytest.mark.parametrize(("make", "message"), BAD, ids=[message for _, message in BAD])
def test_values_without_meaning_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
