"""Warnings before a run, each with a way out, and none where a rule is at home."""

import re

import pytest

from aptlab.config import build, compose
from aptlab.config.option_names import find_option_name
from aptlab.config.search_path import read_option_index
from aptlab.nn.positions.rope import (
    Axial2D,
    Dynamic,
    IRope,
    IRopePhase,
    Linear,
    LinearHarmonic,
    LongRoPE,
    LongRoPE2,
    MRope,
    Partial,
    PerLayer,
    Proportional,
    Standard,
    XPos,
    XPosAngleDecay,
    YaRN,
)
from aptlab.restore.rope import warn_of_rope

OPTIONS = sorted(read_option_index().groups["rope"])
PRESETS = {"gemma3": "per_layer", "glm": "partial", "cohere2": "irope"}  # and the option that is called as their class
DIVISORS = (1.0,) * 32
ABSOLUTE = "logits depend on absolute positions, not on distances alone"


@pytest.mark.parametrize("option", OPTIONS)
def test_the_option_of_a_class_is_the_file_that_names_it(option):
    rule = build(compose("train", [f"rope={option}", "size=debug"]).resolved()["rope"])
    assert find_option_name("rope", type(rule)) == PRESETS.get(option, option)


SAID = [
    (LinearHarmonic(), 4096, r"rope=linear_harmonic: its longest wavelength is 396 tokens and a layer sees 4,096, so"),
    (Standard(), 131_072, "rope=standard: its longest wavelength is 47,117 tokens and a layer sees 131,072, .* larger"),
    (MRope(), 131_072, "rope=mrope: its longest wavelength is 47,117 tokens"),
    (PerLayer(), 131_072, "rope=standard: its longest wavelength is 47,117 tokens"),
    (
        YaRN(temperature_law="apt_sqrt"),
        4096,
        r"rope=yarn: its temperature multiplies logits by 0\.0101: .*; rope\.temperature_law=yarn is the",
    ),
    (
        PerLayer(rules=(Standard(), YaRN(temperature_law="apt_sqrt"))),
        4096,
        r"rope=yarn: its temperature multiplies logits by 0\.01",
    ),
    (IRopePhase(), 4096, f"rope=irope_phase: {ABSOLUTE}; rope=irope_pairs keeps the four bases and is relative"),
    (XPosAngleDecay(), 4096, rf"rope=xpos_angle_decay: {ABSOLUTE}; rope=xpos is relative, also with rope\.zeta=angle"),
    (IRope(), 4096, rf"rope=irope: {ABSOLUTE}; that is its design: .*; rope\.chunk=null rope\.growth=null is relative"),
    (LongRoPE(retained=4), 4096, rf"rope=longrope: {ABSOLUTE}; rope\.retained=0 is relative"),
    (PerLayer(chunks=(64, None)), 4096, rf"rope=per_layer: {ABSOLUTE}; rope\.chunks=null and relative rules are"),
    (YaRN(), 32_768, r"original_len=4,096 x factor=4 reaches 16,384 tokens and the run .* 32,768; use rope\.factor=8$"),
    (
        Linear(original_len=256),
        2048,
        r"rope=linear: original_len=256 x factor=4 reaches 1,024 tokens .* rope\.factor=8$",
    ),
    (
        LongRoPE(),
        8192,
        r"rope=longrope: rope\.long=null, .* `aptlab search rope=longrope ckpt=… target=8192` finds them",
    ),
    (LongRoPE2(), 8192, r"rope=longrope2: rope\.long=null, so its divisors are a first guess and not searched"),
    (
        YaRN(target_len=65_536, allow_factor_mismatch=True),
        4096,
        r"rope\.allow_factor_mismatch=true lets factor=4 reach 16,384 tokens where target_len=65,536; rope\.fac",
    ),
]


@pytest.mark.parametrize(("rule", "length", "message"), SAID, ids=[message[:60] for *_, message in SAID])
def test_what_is_said_names_the_way_out(rule, length, message):
    found = warn_of_rope(rule, head_dim=64, length=length)
    assert len(found) == 1
    assert re.search(message, found[0]), found[0]


QUIET = [
    (Standard(), 32_768),
    (Standard(base=500_000.0), 1_000_000),
    (Partial(), 1_000_000),  # what does not rotate tells far tokens apart by content
    (Proportional(), 1_000_000),
    (XPos(), 1_000_000),  # far tokens fade
    (Axial2D(), 1_000_000),  # rows and columns are no distances of text
    (Dynamic(), 1_000_000),  # its base grows with the text
    (IRope(chunk=8192, growth=None, interval=4), 1_000_000),
    (YaRN(), 16_384),
    (YaRN(factor=8.0, target_len=32_768), 32_768),
    (LongRoPE(long=DIVISORS, factor=4.0), 16_384),
    (LongRoPE(), 4096),
    (LongRoPE2(critical_dim=20), 4096),
]


@pytest.mark.parametrize(("rule", "length"), QUIET, ids=[f"{type(rule).__name__} {length}" for rule, length in QUIET])
def test_nothing_is_said_where_a_rule_is_at_home(rule, length):
    found = warn_of_rope(rule, head_dim=64, length=length)
    assert [text for text in found if ABSOLUTE not in text] == []
    assert bool(found) != rule.relative


@pytest.mark.parametrize("option", OPTIONS)
def test_options_as_they_stand_warn_of_nothing_but_their_design(option):
    config = compose("train", [f"rope={option}", "size=debug"])
    rule, length = build(config.resolved()["rope"]), config.resolved()["context"]
    said = warn_of_rope(rule, head_dim=64, length=length)
    assert len(said) == int(not rule.relative)


def test_a_layer_of_blocks_sees_no_farther_than_its_block():
    rule = IRope(inner=LinearHarmonic(), chunk=256)
    assert not [text for text in warn_of_rope(rule, head_dim=64, length=100_000) if "wavelength" in text]
    rule = IRope(inner=LinearHarmonic(), chunk=512)
    assert [text for text in warn_of_rope(rule, head_dim=64, length=100_000) if "a layer sees 512" in text]
