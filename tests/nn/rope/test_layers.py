"""Rules that differ from layer to layer: irope, per_layer, irope_layers."""

import math

import pytest
import torch

from aptlab.config import build, check, compose
from aptlab.errors import ConfigError
from aptlab.nn.attention.rotation import compute_query_growth
from aptlab.nn.positions.rope import (
    Axial2D,
    GrowingQueries,
    Growth,
    IRope,
    IRopeLayers,
    IRopePhase,
    LayerPositions,
    Llama3,
    NoRope,
    PerLayer,
    Standard,
    YaRN,
)
from tests.reference import rope_seeds as seeds


@pytest.mark.parametrize(("layers", "interval"), [(48, 4), (8, 2), (6, 3), (5, 1)])
def test_irope_rotates_the_layers_that_llama_4_rotates(layers, interval):
    rule = IRope(interval=interval)
    rotary = [rule.for_layer(layer).rule is not None for layer in range(layers)]
    assert rotary == seeds.llama4_layers(layers, interval)
    if (layers, interval) == (48, 4):
        assert rotary.count(False) == 12  # Scout


def test_irope_is_llama_4s_as_it_stands():
    rule = IRope()
    assert rule.for_layer(0) == LayerPositions(
        rule=Standard(base=500_000.0, layout="interleaved"), chunk=8192, norm_after=True
    )
    assert rule.for_layer(3) == LayerPositions(
        rule=None, chunk=None, growth=Growth(floor=8192, scale=0.1), norm_after=False
    )
    assert rule.inv_freq(128) == Standard(base=500_000.0).inv_freq(128)


def test_irope_composes_with_frequency_scaling():
    """Scout: llama3 scaling inside the schedule; Maverick has no norm after the rotation."""
    inner = Llama3(factor=16.0, low=1.0, high=1.0, layout="interleaved")
    rule = IRope(inner=inner, qk_norm=False)
    assert rule.for_layer(1) == LayerPositions(rule=inner, chunk=8192)
    assert rule.inv_freq(128) == inner.inv_freq(128)


def test_irope_keeps_what_its_inner_rule_does_in_each_layer():
    inner = PerLayer(rules=(Standard(base=100.0), Standard(base=200.0)))
    rule = IRope(inner=inner)
    assert [place.rule and place.rule.base for place in map(rule.for_layer, range(4))] == [100.0, 200.0, 100.0, None]


@pytest.mark.parametrize(
    ("rule", "relative"),
    [
        (IRope(), False),
        (IRope(chunk=None), False),
        (IRope(growth=None), False),
        (IRope(chunk=None, growth=None), True),
        (IRope(chunk=None, growth=None, inner=IRopePhase()), False),
        (GrowingQueries(), False),
        (GrowingQueries(growth=Growth(scale=0.0)), True),
        (GrowingQueries(growth=Growth(scale=0.0), inner=IRopePhase()), False),
        (PerLayer(), True),
        (PerLayer(rules=(Standard(), IRopePhase())), False),
        (PerLayer(chunks=(None, None)), True),
        (PerLayer(chunks=(None, 64)), False),
    ],
)
def test_a_schedule_is_relative_if_all_of_it_is(rule, relative):
    assert rule.relative is relative


def test_growing_queries_keep_what_the_inner_rule_does_in_each_layer():
    inner = IRope(inner=Standard(base=100.0), interval=2, chunk=7, growth=None)
    rule = GrowingQueries(inner=inner, growth=Growth(floor=5, offset=0))
    places = [rule.for_layer(layer) for layer in range(4)]
    assert [(place.rule, place.chunk) for place in places] == [(inner.inner, 7), (None, None)] * 2
    assert {place.growth for place in places} == {Growth(floor=5, offset=0)}
    assert rule.inv_freq(8) == inner.inv_freq(8)


@pytest.mark.parametrize(("offset", "steps"), [(0, [0, 0, 0, 1, 1, 1, 2]), (1, [0, 0, 1, 1, 1, 2, 2])])
def test_queries_grow_from_the_position_that_the_offset_says(offset, steps):
    grown = compute_query_growth(torch.arange(7).unsqueeze(0), Growth(floor=3, scale=0.5, offset=offset))
    assert grown.flatten().tolist() == pytest.approx([1 + 0.5 * math.log(1 + step) for step in steps])


def test_per_layer_cycles_through_its_rules():
    local, everywhere = Standard(base=10_000.0), Standard(base=1_000_000.0)
    rule = PerLayer(rules=(*[local] * 5, everywhere))
    assert [rule.for_layer(layer).rule for layer in range(12)] == [*[local] * 5, everywhere] * 2
    assert rule.inv_freq(64) == local.inv_freq(64)


def test_per_layer_limits_layers_to_blocks():
    rule = PerLayer(rules=[Standard(), NoRope()], chunks=[128, None])
    assert [rule.for_layer(layer) for layer in range(3)] == [
        LayerPositions(rule=Standard(), chunk=128),
        LayerPositions(),
        LayerPositions(rule=Standard(), chunk=128),
    ]
    assert hash(rule) == hash(PerLayer(rules=(Standard(), NoRope()), chunks=(128, None)))
    assert PerLayer(rules=(IRope(chunk=64),)).for_layer(0).chunk == 64  # a rule's own block stays where nothing is said


def test_per_layer_takes_the_first_rule_that_rotates():
    assert PerLayer(rules=(NoRope(), YaRN())).inv_freq(64) == YaRN().inv_freq(64)
    assert PerLayer(rules=(Standard(), Axial2D())).streams == 2


def test_irope_layers_has_a_base_per_layer():
    rule = IRopeLayers(layout="interleaved")
    assert [rule.for_layer(layer).rule for layer in range(6)] == [
        Standard(base=seeds.BASES[layer % 4], layout="interleaved") for layer in range(6)
    ]


BAD = [
    (lambda: PerLayer(rules=()), r"^rules must be a list of rope rules, one per layer of the cycle"),
    (lambda: PerLayer(rules=(4,)), r"^rules must be a list of rope rules"),
    (lambda: PerLayer(rules=(NoRope(),)).inv_freq(64), r"^rules rotate no layer; use rope=none"),
    (lambda: PerLayer(chunks=(64,)), r"^chunks=\[64\] must have one number .* for each of the 2 rules"),
    (lambda: PerLayer(chunks=(64, 0)), r"^chunks=\[64, 0\] must have one number of positions or null"),
    (lambda: IRope(interval=0), r"^interval must be a finite number >= 1, got 0"),
    (lambda: IRope(chunk=0), r"^chunk must be a finite number >= 1, got 0"),
    (lambda: Growth(floor=0), r"^floor must be a finite number >= 1, got 0"),
    (lambda: IRopeLayers(bases=()), r"^bases=\[\] must be numbers larger than 1, such as \[10000"),
    (lambda: IRopeLayers(bases=(1.0, 2.0)), r"^bases=\[1\.0, 2\.0\] must be numbers larger than 1"),
    (lambda: IRopeLayers(layout="neox"), r"^layout='neox'; allowed: half, interleaved"),
]


@pytest.mark.parametrize(("make", "message"), BAD, ids=[message for _, message in BAD])
def test_schedules_without_meaning_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def built(*words):
    config = compose("train", [*words, "size=debug"])
    check(config)
    return build(config.resolved()["rope"])


def test_the_command_line_changes_schedules():
    assert built("rope=irope", "rope.growth=null", "rope.chunk=null").relative
    assert built("rope=irope", "rope.growth.floor=64").growth == Growth(floor=64)
    scout = ["rope.inner._target_=aptlab.nn.positions.rope.Llama3", "+rope.inner.factor=16", "+rope.inner.high=1"]
    assert built("rope=irope", *scout).inner == Llama3(factor=16, high=1, layout="interleaved")
    assert built("rope=per_layer", "rope.chunks=[64,null]").for_layer(0).chunk == 64
