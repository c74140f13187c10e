"""Every option of conf/rope keeps the laws that ship to third parties, as it stands and in its other forms."""

import dataclasses
import math

import pytest
import torch

from aptlab.config import build, compose
from aptlab.config.files import read_config_file
from aptlab.config.option_names import get_option_name
from aptlab.config.search_path import find_conf_dir, read_option_index
from aptlab.nn.positions.rope import (
    Dynamic,
    GrowingQueries,
    Growth,
    IRope,
    Llama3,
    LongRoPE,
    LongRoPE2,
    MRope,
    MRopeInterleaved,
    NTKByParts,
    Partial,
    PerLayer,
    Proportional,
    Standard,
    XPos,
    YaRN,
    YaRNZones,
)
from aptlab.testing import RopeContract
from aptlab.testing.rope import make_layer_positions

LENGTHS = {"original_len": 16}  # the contract decodes 24 tokens, so rules that go by length switch
CONF = find_conf_dir() / "rope"
OPTIONS = sorted(set(read_option_index().groups["rope"]) - {"none"})
FORMS = {
    "DynamicOfThePaper": Dynamic(law="paper", **LENGTHS),
    "YaRNWithCriticalPair": YaRN(critical_dim=1, **LENGTHS),
    "YaRNInterleaved": YaRN(layout="interleaved", **LENGTHS),
    "YaRNOnCosSin": YaRN(temperature_on="cos_sin", **LENGTHS),
    "NTKByPartsWithCriticalPair": NTKByParts(critical_dim=1, **LENGTHS),
    "ZonesWithTemperature": YaRNZones(temperature_law="yarn", **LENGTHS),
    "LongRoPEWithRetained": LongRoPE(factor=8.0, retained=4, **LENGTHS),
    "LongRoPEOnCosSin": LongRoPE(factor=8.0, temperature_on="cos_sin", **LENGTHS),
    "LongRoPE2Sharpened": LongRoPE2(factor=8.0, attention_factor=1.1, **LENGTHS),
    "LongRoPEOfHalfAHead": LongRoPE(factor=8.0, fraction=0.5, temperature_on="cos_sin", **LENGTHS),
    "LongRoPE2OfHalfAHead": LongRoPE2(factor=8.0, fraction=0.5, **LENGTHS),
    "Scout": IRope(inner=Llama3(factor=16.0, low=1.0, high=1.0, layout="interleaved")),
    "IRopeOfThreeBases": IRope(inner=PerLayer(), chunk=None, growth=None, qk_norm=False),
    "Ministral3": GrowingQueries(inner=YaRN(**LENGTHS), growth=Growth(floor=16, offset=0)),
    "LocalAndGlobal": PerLayer(chunks=(8, None)),
    "XPosByAngle": XPos(zeta="angle"),
    "PartialHalf": Partial(fraction=0.5, layout="interleaved"),
    "WholeProportional": Proportional(fraction=1.0),
    "MRopeOfFrames": MRope(grid=(4, 4)),
    "MRopeInterleavedOfFrames": MRopeInterleaved(grid=(4, 4)),
}


class Laws(RopeContract):
    """The contract on heads that every option can have; two laws say what they mean for rules that they do not fit."""

    head_dims = (8, 64)

    def test_rotation_keeps_norms(self) -> None:
        for head_dim in self.head_dims:
            if self.rule.head_regimes(2) is None:
                continue
            rotary = make_layer_positions(self.rule, head_dim)[0].rotary
            generator = torch.Generator().manual_seed(0)
            x = torch.randn(1, 6, 32, head_dim, generator=generator, dtype=torch.float64)  # 4 query and 2 key heads
            rotated = rotary.rotate(x, rotary.angles(torch.arange(32).unsqueeze(0) * 400_009))
            assert (rotated.norm(dim=-1) / x.norm(dim=-1) - 1).abs().max() < 1e-6
        if self.rule.head_regimes(2) is None:
            super().test_rotation_keeps_norms()

    def test_factor_one_is_the_standard_rule(self) -> None:
        if not isinstance(self.rule, Proportional):
            if getattr(self.rule, "attention_factor", None) is not None:  # a number that follows from nothing
                self.rule = dataclasses.replace(self.rule, attention_factor=None)
            super().test_factor_one_is_the_standard_rule()
            return
        for head_dim in self.head_dims:  # of its pairs that rotate
            freq = dataclasses.replace(self.rule, factor=1.0).inv_freq(head_dim)
            rotary = sum(f > 0 for f in freq)
            for i in range(rotary):
                assert math.isclose(freq[i], self.rule.base ** (-2 * i / head_dim), rel_tol=1e-12)


def fill_context(node):
    """The node with the default context where it stands, in nested rules too."""
    if isinstance(node, dict):
        return {key: fill_context(value) for key, value in node.items()}
    return 256 if node == "${context}" else node


def option(name):
    """The laws of the option as its file has it; to compose all of them would hold up every collection of tests."""
    node = read_config_file(CONF / f"{name}.yaml")
    node = fill_context(node)
    return type(f"Test_{name}", (Laws,), {"rule": build(node), "config": node})


globals().update({f"Test_{name}": option(name) for name in OPTIONS})
globals().update({f"Test{name}": type(f"Test{name}", (Laws,), {"rule": rule}) for name, rule in FORMS.items()})


@pytest.mark.parametrize("name", OPTIONS)
def test_a_composition_gives_what_the_file_has(name):
    assert compose("train", [f"rope={name}", "size=debug"]).resolved()["rope"] == globals()[f"Test_{name}"].config


def test_every_option_is_here():
    assert len(OPTIONS) >= 31
    assert {f"Test_{name}" for name in OPTIONS} <= set(globals())


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_rotates_the_layers_that_it_says(name):
    rule = globals()[f"Test_{name}"].rule
    rotary = [rule.for_layer(layer).rule is not None for layer in range(8)]
    assert rotary == ([True, True, True, False] * 2 if name in ("irope", "cohere2") else [True] * 8)


def test_no_rule_leaves_all_layers_alone():
    node = compose("train", ["rope=none", "size=debug"]).resolved()["rope"]
    assert {build(node).for_layer(layer).rule for layer in range(8)} == {None}


def test_options_are_named_once():
    rules = [globals()[f"Test_{name}"].rule for name in OPTIONS]
    presets = {"gemma3": "per_layer", "glm": "partial", "cohere2": "irope"}  # and the option called as their class
    assert len({type(rule) for rule in rules}) == len(OPTIONS) - len(presets)
    assert {name: get_option_name("rope", type(globals()[f"Test_{name}"].rule)) for name in presets} == presets
    assert Standard() in rules
