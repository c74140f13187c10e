"""Factors and lengths that follow from each other, or contradict each other."""

import pytest

from aptlab.config import build, check, compose
from aptlab.errors import ConfigError
from aptlab.nn.positions.rope import (
    NTK,
    Dynamic,
    Linear,
    Llama3,
    LongRoPE,
    LongRoPE2,
    NTKByParts,
    NTKLiu,
    YaRN,
    YaRNZones,
)

SCALED = [Linear, NTK, NTKLiu, Dynamic, YaRN, NTKByParts, Llama3, YaRNZones, LongRoPE, LongRoPE2]
named = pytest.mark.parametrize("rule", SCALED, ids=lambda rule: rule.__name__)


@named
def test_a_missing_factor_follows_from_the_lengths(rule):
    made = rule(factor=None, original_len=4096, target_len=131_072)
    assert made.factor == made.stretch == 32.0
    assert made == rule(factor=32.0, original_len=4096, target_len=131_072)
    assert made.inv_freq(64) == rule(factor=32.0, original_len=4096).inv_freq(64)


@named
def test_a_target_that_is_not_longer_stretches_nothing(rule):
    assert rule(factor=None, original_len=4096, target_len=2048).stretch == 1.0


@named
def test_a_factor_that_contradicts_the_lengths_is_refused(rule):
    """The seeds' own example: 128,000 tokens with a factor of 4 is right for an original context of 32,000 only."""
    expected = (
        r"^factor=4 contradicts target_len=128000 and original_len=4096, whose ratio is 31\.25; use "
        r"factor=null or 31\.25, original_len=32000, or allow_factor_mismatch=true"
    )
    with pytest.raises(ConfigError, match=expected):
        rule(factor=4.0, original_len=4096, target_len=128_000)
    assert rule(factor=4.0, original_len=4096, target_len=128_000, allow_factor_mismatch=True).stretch == 4.0
    assert rule(factor=4.0, original_len=32_000, target_len=128_000).stretch == 4.0


@pytest.mark.parametrize(("factor", "fits"), [(4.0, True), (4.03, True), (3.97, True), (4.05, False), (3.95, False)])
def test_a_percent_of_difference_is_no_contradiction(factor, fits):
    if fits:
        assert YaRN(factor=factor, original_len=4096, target_len=16_384).stretch == factor
    else:
        with pytest.raises(ConfigError, match="contradicts"):
            YaRN(factor=factor, original_len=4096, target_len=16_384)


@named
def test_neither_factor_nor_target_is_refused(rule):
    with pytest.raises(ConfigError, match=r"^factor=null needs target_len; set one of them"):
        rule(factor=None)


def test_a_target_below_the_trained_context_names_the_real_ratio():
    with pytest.raises(ConfigError, match=r"whose ratio is 0\.5; use factor=null or 1, "):
        Linear(factor=4.0, original_len=4096, target_len=2048)


OPTIONS = (
    "linear",
    "ntk",
    "ntk_liu",
    "dynamic",
    "yarn",
    "ntk_by_parts",
    "llama3",
    "yarn_zones",
    "longrope",
    "longrope2",
)


@pytest.mark.parametrize("option", OPTIONS)
def test_the_command_line_takes_a_target(option):
    words = [f"rope={option}", "rope.factor=null", "rope.target_len=16384", "rope.original_len=2048"]
    config = compose("train", [*words, "size=debug"])
    check(config)
    assert build(config.resolved()["rope"]).stretch == 8.0


@pytest.mark.parametrize("option", OPTIONS)
def test_a_contradiction_is_found_before_anything_is_built(option):
    words = [f"rope={option}", "rope.factor=2", "rope.target_len=16384", "rope.original_len=2048", "size=debug"]
    with pytest.raises(ConfigError, match=r"rope.factor=2 contradicts target_len=16384"):
        check(compose("train", words))
    check(compose("train", [*words, "rope.allow_factor_mismatch=true"]))
