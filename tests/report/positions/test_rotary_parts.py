"""Rules taken apart: layers, heads, sections, sets that change, and rules that rotate nothing."""

import numpy as np
import pytest

from aptlab.errors import ConfigError
from aptlab.nn.positions.rope import (
    Axial2D,
    Dynamic,
    IRope,
    IRopeHeads,
    IRopeLayers,
    IRopePhase,
    Kron2D,
    Linear,
    LongRoPE,
    NoRope,
    Partial,
    Standard,
    XPosAngleDecay,
    YaRN,
    compute_standard_frequencies,
)
from aptlab.report.positions import split_rotary_parts
from aptlab.report.positions.rotary_parts import compute_text_angles, select_all_pairs
from tests.report.positions.making import SMALL, one


def test_a_rule_without_frequencies_is_an_error_with_a_way_out():
    with pytest.raises(ConfigError, match=r"rope=none rotates no pair.*rope=standard"):
        split_rotary_parts("none", NoRope(), SMALL)


def test_layers_heads_and_sections_are_parts_with_names():
    names = {
        "layers": [part.part for part in split_rotary_parts("a", IRopeLayers(), SMALL)],
        "heads": [part.part for part in split_rotary_parts("a", IRopeHeads(), SMALL)],
        "axial": [part.part for part in split_rotary_parts("a", Axial2D(), SMALL)],
        "kron": [part.part for part in split_rotary_parts("a", Kron2D(), SMALL)],
        "irope": [part.part for part in split_rotary_parts("a", IRope(), SMALL)],
    }
    assert names == {
        "layers": ["layer 0", "layer 1", "layer 2", "layer 3"],
        "heads": ["head 0", "head 1", "head 2", "head 3"],
        "axial": ["height", "width"],
        "kron": ["height + width", "height − width"],
        "irope": [""],
    }


def test_sections_share_out_all_pairs():
    parts = split_rotary_parts("axial2d", Axial2D(), SMALL)
    assert [part.pairs for part in parts] == [(0, 1, 2, 3), (4, 5, 6, 7)]
    assert select_all_pairs(parts).pairs == tuple(range(8))


def test_each_head_rotates_by_its_own_set():
    parts = split_rotary_parts("irope_heads", IRopeHeads(), SMALL)
    bases = (10_000, 20_000, 30_000, 40_000)
    for part, base in zip(parts, bases, strict=True):
        assert part.frequencies(1024)[0] == pytest.approx(compute_standard_frequencies(base, 16))


def test_sets_follow_the_token_in_irope_phase():
    part = one(IRopePhase())
    angle, _ = part.angles(np.array([5, 6]), 1024)
    assert angle[0] == pytest.approx([5 * f for f in compute_standard_frequencies(20_000, 16)])
    assert angle[1] == pytest.approx([6 * f for f in compute_standard_frequencies(30_000, 16)])
    assert part.frequencies(1024).shape == (4, 8)


def test_sets_follow_the_length_in_longrope_and_dynamic():
    longrope = one(LongRoPE(original_len=128, long=(4.0,) * 8))
    assert longrope.frequencies(128)[0] == pytest.approx(compute_standard_frequencies(10_000, 16))
    assert longrope.frequencies(129)[0] == pytest.approx([f / 4 for f in compute_standard_frequencies(10_000, 16)])
    dynamic = one(Dynamic(original_len=128, factor=2.0))
    assert dynamic.frequencies(128)[0] == pytest.approx(compute_standard_frequencies(10_000, 16))
    assert dynamic.frequencies(256)[0] == pytest.approx(compute_standard_frequencies(10_000 * 3 ** (16 / 14), 16))


def test_retained_tokens_keep_the_plain_set():
    part = one(LongRoPE(original_len=128, long=(4.0,) * 8, retained=2))
    assert part.choices(np.arange(4), 1024).tolist() == [2, 2, 1, 1]
    assert part.used(1024).tolist() == [1, 2]


def test_dims_that_do_not_rotate_count_into_the_head_but_not_into_a_section():
    assert one(Partial(fraction=0.5)).still == 8
    assert [part.still for part in split_rotary_parts("a", Axial2D(), SMALL)] == [0, 0]


def test_extensions_were_trained_with_the_plain_rule_and_others_with_their_own():
    plain = compute_standard_frequencies(10_000, 16)
    for rule in (Linear(original_len=128), YaRN(original_len=128), Standard()):
        assert one(rule).trained(128)[0] == pytest.approx(plain)
    half = compute_standard_frequencies(10_000, 8)
    assert one(LongRoPE(original_len=128, fraction=0.5)).trained(128)[0] == pytest.approx(half)
    assert one(Partial(fraction=0.5)).plain() == pytest.approx(half)
    assert one(Standard(base=500.0)).trained(128)[0] == pytest.approx(compute_standard_frequencies(500, 16))


def test_a_size_that_falls_with_position_is_part_of_the_angles():
    _, size = one(XPosAngleDecay()).angles(np.array([0, 100]), 1024)
    assert size[0] == pytest.approx(np.ones(8))
    assert size[1] == pytest.approx(np.exp([-f for f in compute_standard_frequencies(10_000, 16)]))


def test_a_text_is_read_as_rows_by_rules_for_pictures():
    part = select_all_pairs(split_rotary_parts("axial2d", Axial2D(width=10), SMALL))
    angle, _ = compute_text_angles(part, np.array([23]), 1024)
    frequencies = compute_standard_frequencies(10_000, 8)
    assert angle[0] == pytest.approx([2 * f for f in frequencies] + [3 * f for f in frequencies])
