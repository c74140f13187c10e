"""Searched divisors: which list a token rotates by, what stands in before a search, and lists that are refused."""

import pytest
import torch

from aptlab.config import build, check, compose
from aptlab.errors import ConfigError
from aptlab.nn.positions.rope import LongRoPE, LongRoPE2, Standard, YaRN
from tests.helpers import assert_agree
from tests.reference import rope as reference
from tests.reference import rope_lengths as lengths

SHORT = tuple(1.0 + 0.01 * i for i in range(32))
LONG = tuple(1.0 + 0.5 * i for i in range(32))


@pytest.mark.parametrize("rule", [LongRoPE, LongRoPE2])
@pytest.mark.parametrize("base", [10_000.0, 500_000.0])
def test_frequencies_are_divided_by_the_lists(rule, base):
    made = rule(base=base, short=SHORT, long=LONG)
    short, long = made.regimes(64)
    assert_agree(short, lengths.searched(base, SHORT, 64))
    assert_agree(long, lengths.searched(base, LONG, 64))
    assert made.inv_freq(64) == long
    assert rule(base=base, long=list(LONG)).regimes(64) == (Standard(base=base).inv_freq(64), long)


@pytest.mark.parametrize("rule", [LongRoPE(original_len=100), LongRoPE2(original_len=100)], ids=["v1", "v2"])
def test_each_sequence_chooses_by_its_own_length(rule):
    """Two packed documents of 40 and 160 tokens in one row, and a row of 100: exactly L is short."""
    sizes = torch.tensor([[40] * 40 + [160] * 160, [100] * 200])
    positions = torch.cat((torch.arange(40), torch.arange(160))).expand(2, -1)
    regime = rule.regime(positions, sizes)
    assert regime.dtype == torch.int64
    assert regime.tolist() == [[0] * 40 + [1] * 160, [0] * 200]
    alone = rule.regime(positions[:1], sizes[:1])
    assert torch.equal(alone, regime[:1])  # other rows change nothing


@pytest.mark.parametrize("rule", [LongRoPE, LongRoPE2])
def test_a_part_of_each_head_is_a_smaller_head(rule):
    """Guess, critical pair and lists are those of a head that has the rotating dims alone."""
    for given in ({}, {"long": LONG}, {"short": SHORT, "long": LONG}):
        part, whole = rule(fraction=0.5, **given), rule(**given)
        assert part.regimes(128) == whole.regimes(64)
        assert len(part.inv_freq(128)) == 32
    with pytest.raises(ConfigError, match=r"^long has 32 divisors, and a head of which 48 dims rotate needs 24"):
        rule(fraction=0.75, long=LONG).inv_freq(64)
    with pytest.raises(ConfigError, match=r"^fraction=0\.3 of head_dim=64 is 19 dims"):
        rule(fraction=0.3).inv_freq(64)


def test_retained_tokens_keep_the_plain_frequencies_in_long_texts_only():
    rule = LongRoPE(original_len=10, retained=3, short=SHORT, long=LONG)
    positions, standard = torch.arange(6).unsqueeze(0), Standard().inv_freq(64)
    chosen = [rule.regime(positions, torch.full_like(positions, length))[0].tolist() for length in (10, 11)]
    assert chosen == [[0] * 6, [2, 2, 2, 1, 1, 1]]
    assert_agree(rule.regimes(64)[2], standard, rel=0)
    assert (rule.relative, LongRoPE(original_len=10).relative) == (False, True)
    assert len(rule.temperatures()) == 3


def test_before_a_search_longrope_has_yarns_divisors():
    """The released code's first guess (evolution from YaRN's mask)."""
    rule = LongRoPE(base=500_000.0, factor=16.0, original_len=8192)
    assert_agree(rule.inv_freq(128), reference.yarn(500_000.0, 16.0, 8192, 1.0, 32.0, 128), rel=1e-13)
    assert_agree(rule.inv_freq(128), YaRN(base=500_000.0, factor=16.0, original_len=8192).inv_freq(128), rel=1e-14)
    assert rule.regimes(128)[0] == Standard(base=500_000.0).inv_freq(128)


@pytest.mark.parametrize(("base", "length", "head_dim", "pair"), [(500_000.0, 8192, 128, 35), (10_000.0, 2048, 96, 31)])
def test_before_a_search_longrope2_continues_ntk_below_the_theoretical_critical_pair(base, length, head_dim, pair):
    rule = LongRoPE2(base=base, factor=16.0, original_len=length)
    assert rule.critical(head_dim) == pair
    assert_agree(rule.initial_divisors(head_dim), lengths.continued(16.0, pair, head_dim))
    assert rule.initial_divisors(head_dim)[pair] == 16.0


def test_ntk_below_the_critical_pair_is_the_published_start():
    """Row 1 of llama3-ntk-cd-init-128k.csv of the released code: 21.81^(1/33) = 1.0979."""
    rule = LongRoPE2(base=500_000.0, factor=21.81, original_len=8192, critical_dim=33)
    assert rule.initial_divisors(128)[1] == pytest.approx(1.0979, abs=5e-5)
    assert rule.initial_divisors(128)[33:] == (21.81,) * 31


@pytest.mark.parametrize("length", [1, 6, 7, 10**12])
def test_extreme_lengths_have_a_critical_pair_inside_the_head(length):
    assert 1 <= LongRoPE2(original_len=length).critical(8) <= 3


def test_a_published_list_below_one_is_a_list_of_longrope():
    """MiniCPM4's first divisor is 0.9978, so version 1 takes any positive number."""
    assert LongRoPE(long=(0.9977997200264581, *LONG[1:])).inv_freq(64)[0] > 1.0


FALLING = (*LONG[:-1], 3.0)
BAD = [
    (lambda: LongRoPE(long=LONG).inv_freq(128), r"^long has 32 divisors, and a head of 128 dims needs 64; it was"),
    (lambda: LongRoPE(short=SHORT[:-1]).inv_freq(64), r"^short has 31 divisors, and a head of 64 dims needs 32;"),
    (lambda: LongRoPE2(long=()).inv_freq(64), r"^long has 0 divisors, and a head of 64 dims needs 32"),
    (lambda: LongRoPE(long=(1.0, 0.0)), r"^long holds a divisor that is no positive number: 0; 1 keeps"),
    (lambda: LongRoPE(short=(-1.0, 1.0)), r"^short holds a divisor that is no positive number: -1"),
    (lambda: LongRoPE(long=(1.0, float("inf"))), r"^long holds a divisor that is no positive number: inf"),
    (lambda: LongRoPE(long=(1.0, float("nan"))), r"^long holds a divisor that is no positive number: nan"),
    (lambda: LongRoPE2(long=FALLING), r"^long falls at pair 31: 16\.0 to 3\.0; divisors of longrope2 rise"),
    (
        lambda: LongRoPE2(long=(0.9, 1.0)),
        r"^long holds 0\.9, and divisors of longrope2 are at least 1, .* rope=l",
    ),
    (lambda: LongRoPE2(critical_dim=32).inv_freq(64), r"^critical_dim=32 .* with head_dim=64 use 1 to 31"),
    (lambda: LongRoPE(retained=-1), r"^retained must be a finite number >= 0, got -1"),
    (lambda: LongRoPE().inv_freq(63), r"^head_dim=63 is not a positive even number"),
]


@pytest.mark.parametrize(("make", "message"), BAD, ids=[message for _, message in BAD])
def test_lists_without_meaning_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


@pytest.mark.parametrize("option", ["longrope", "longrope2"])
def test_the_command_line_takes_lists(option):
    config = compose("train", [f"rope={option}", f"rope.long={list(LONG)}", "size=debug"])
    check(config)
    assert build(config.resolved()["rope"]).long == LONG
