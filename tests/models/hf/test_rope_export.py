"""Every rope option: it is written so that transformers computes the same logits, or it says why it cannot be."""

import dataclasses
import json
import re
from functools import partial
from pathlib import Path

import pytest
import torch

from aptlab.config import build, compose
from aptlab.errors import ConfigError
from aptlab.models.hf import build_rope_parameters, describe_decoder, read_folder, read_rope_rule
from aptlab.models.hf.rope_from_hf import describe_factor_mismatch, list_hf_rules, parse_rope_parameters
from aptlab.nn.attention import FullAttention
from aptlab.nn.norm import RMSNorm
from aptlab.nn.positions.rope import (
    NTK,
    Dynamic,
    IRopeHeads,
    IRopePairs,
    Learnable,
    Linear,
    LinearHarmonic,
    Llama3,
    LongRoPE,
    LongRoPE2,
    MRope,
    NTKByParts,
    NTKLiu,
    Partial,
    Proportional,
    Standard,
    XPos,
    YaRN,
    YaRNUniform,
    YaRNZones,
)
from aptlab.nn.positions.rope.hf import HFSource
from aptlab.testing import make_random_tokens, make_tiny_decoder
from tests.models.hf.making import CONTEXT, assert_there_and_back, built, export, gap, loaded

TO = {"base": 100.0, "factor": 4.0, "original_len": CONTEXT}
NAMED = {
    "default": Standard(base=500_000.0),
    "linear": Linear(**TO),
    "dynamic": Dynamic(**TO),
    "dynamic, paper": Dynamic(**TO, law="paper"),
    "yarn": YaRN(**TO),
    "yarn, open ends": YaRN(**TO, truncate=False),
    "yarn, attention factor": YaRN(**TO, attention_factor=1.3),
    "yarn, other laws": YaRN(**TO, temperature_law="su"),
    "yarn, none": YaRN(**TO, temperature_law="none"),
    "llama3": Llama3(**TO),
    "llama3, a step": Llama3(**TO, low=1.0, high=1.0),
    "longrope": LongRoPE(**TO),
    "longrope2": LongRoPE2(**TO, critical_dim=3),
    "proportional": Proportional(base=100.0, fraction=0.5, factor=2.0),
    "default, scaled base": NTK(**TO),
    "default, critical base": NTK(**TO, critical_dim=3),
    "default, ntk_liu": NTKLiu(**TO),
    "default, mrope": MRope(base=100.0),
}
DIVIDED = {
    "yarn of the paper": YaRN(**TO, ramp="ratio"),
    "yarn, critical": YaRN(**TO, critical_dim=3),
    "llama3, critical": Llama3(**TO, critical_dim=3),
    "ntk_by_parts": NTKByParts(**TO),
    "yarn_zones": YaRNZones(**TO, zones=(4, 12)),
    "yarn_uniform": YaRNUniform(base=100.0),
    "linear_harmonic": LinearHarmonic(),
    "irope_pairs": IRopePairs(bases=(100.0, 200.0, 300.0, 400.0)),
}


@pytest.mark.parametrize("name", NAMED)
def test_a_rule_that_transformers_knows_has_its_name(name, tmp_path):
    net = make_tiny_decoder(rope=NAMED[name], gain=4.0)
    source = assert_there_and_back(net, tmp_path / "hf")
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert config["rope_parameters"]["rope_type"] == name.partition(",")[0].replace("longrope2", "longrope")
    mine, theirs = net.rope.regimes(16), source.rope.regimes(16)
    assert theirs == tuple(pytest.approx(one, rel=1e-12) for one in mine)
    assert source.rope.temperature == pytest.approx(net.rope.temperature, rel=1e-12)


@pytest.mark.parametrize("name", DIVIDED)
def test_fixed_frequencies_without_a_name_are_written_as_divisors(name, tmp_path):
    net = make_tiny_decoder(rope=DIVIDED[name], gain=4.0)
    source = assert_there_and_back(net, tmp_path / "hf")
    described = describe_decoder(net, context=CONTEXT)
    assert described.config["rope_parameters"]["rope_type"] == "longrope"
    assert described.config["architectures"] == ["LlamaForCausalLM"]
    assert len(described.notes) == 1
    assert "is written as rope_type=longrope with two equal lists of divisors" in described.notes[0]
    assert source.rope.inv_freq(16) == pytest.approx(DIVIDED[name].inv_freq(16), rel=1e-12)


def test_learned_frequencies_are_written_as_they_are_now(tmp_path):
    net = make_tiny_decoder(rope=Learnable(base=100.0), gain=4.0)
    tokens = make_random_tokens(2, 40)
    before = net(tokens).logits.detach()
    with torch.no_grad():
        net.rotaries[0].weight.normal_(std=3.0, generator=torch.Generator().manual_seed(0))
    assert (net(tokens).logits - before).abs().max() > 1e-2
    assert "with the frequencies it has learned" in export(net, tmp_path).notes[0]
    assert gap(net, loaded(tmp_path), tokens) <= 1e-5
    again = built(read_folder(tmp_path))
    assert (again(tokens).logits - net(tokens).logits).abs().max() <= 1e-5


SHORTER = {"size": "debug", "context": "32", "vocab": "61"}
WRITTEN = {
    "standard linear ntk ntk_liu dynamic yarn llama3 ntk_by_parts yarn_zones yarn_uniform linear_harmonic longrope": "",
    "longrope2 proportional partial learnable mrope mrope_interleaved irope irope_pairs none": "",
    "axial2d mixed2d kron2d": r"cannot be exported to format=hf: it reads positions of 2 numbers",
    "axial3d kron3d": r"cannot be exported to format=hf: it reads positions of 3 numbers",
    "xpos": r"rope=XPos cannot be exported to format=hf: it shrinks logits with distance",
    "xpos_angle_decay": r"rope=XPosAngleDecay cannot be exported.*it shrinks queries and keys with position",
    "irope_phase": r"rope=IRopePhase cannot be exported.*goes by the position of a token.*irope_pairs can be",
    "irope_heads": r"rope=IRopeHeads cannot be exported.*differs from head to head.*irope_pairs can be",
    "irope_layers per_layer": r"differs from layer to layer and cannot be exported.*train with one rule for all layers",
}
MESSAGES = {name: message for names, message in WRITTEN.items() for name in names.split()}
OPTIONS = sorted(path.stem for path in (Path(__file__).parents[3] / "conf" / "rope").glob("*.yaml"))


def say_why(net):
    """What the rules of the layers say of their export; nothing where all can be written."""
    rules = list(
        dict.fromkeys(rule for rule in (net.rope.for_layer(layer).rule for layer in range(net.shape.depth)) if rule)
    )
    found = [rule.hf_refusal(net.shape.head_sizes()[2]) for rule in rules]
    return next((re.escape(one.reason) for one in found if one), "differs from layer to layer" if rules[1:] else "")


def test_the_messages_are_those_of_options_that_there_are():
    assert set(MESSAGES) <= set(OPTIONS)


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_exports_or_says_why_it_cannot(name, tmp_path):
    config = compose("train", [f"{key}={value}" for key, value in SHORTER.items()] + [f"rope={name}"])
    net = build(config.resolved()["model"]).eval()
    message = MESSAGES[name] if name in MESSAGES else say_why(net)  # a rule that is new here answers for itself
    if message:
        with pytest.raises(ConfigError, match=message):
            describe_decoder(net, context=32)
        return
    export(net, tmp_path, context=32)
    tokens = make_random_tokens(1, 64)
    with torch.no_grad():
        expected = loaded(tmp_path)(tokens).logits
        assert (net(tokens).logits - expected).abs().max().item() <= 1e-6


@pytest.mark.parametrize("eps", ["1e-6", "1e-5", "0.1"])
def test_irope_is_exported_with_any_eps_of_the_norms(eps, tmp_path):
    config = compose("train", ["size=debug", "context=32", "vocab=61", "rope=irope", f"norm.eps={eps}"])
    net = build(config.resolved()["model"]).eval()
    written = export(net, tmp_path).config
    assert (written["model_type"], written["rms_norm_eps"]) == ("llama4_text", float(eps))
    assert gap_of(net, tmp_path) <= 1e-6


def gap_of(net, folder):
    tokens = make_random_tokens(1, 64)
    with torch.no_grad():
        return (net(tokens).logits - loaded(folder)(tokens).logits).abs().max().item()


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            {"rope": LongRoPE(**TO, retained=2)},
            r"rope=LongRoPE cannot be exported.*with rope\.retained=2 rotates the first tokens.*rope\.retained=0",
        ),
        (
            {"rope": LongRoPE2(**TO, attention_factor=1.2)},
            r"rope=LongRoPE2 with rope\.attention_factor beyond original_len only.*rope\.attention_factor=null",
        ),
        ({"rope": MRope(grid=(4, 4))}, r"rope=MRope cannot be exported.*positions of 3 numbers"),
        ({"rope": XPos()}, r"train with rope=standard, linear, ntk, yarn, llama3 or longrope to export"),
        ({"rope": IRopeHeads()}, "rope=irope_pairs can be exported"),
        (
            {"rope": Partial(fraction=0.5), "attention": partial(FullAttention, qk_norm=True)},
            r"attention\.qk_norm=true cannot be exported to format=hf: Phi-3 is the layout in which the first dims",
        ),
        (
            {"rope": LongRoPE(**TO, fraction=0.5)},
            r"size\.head_dim=\d+, which is not dim / heads, cannot be exported.*Phi-3 .*with heads of dim / heads",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_no_rope_type_computes_is_refused(parts, message):
    with pytest.raises(ConfigError, match=message):
        describe_decoder(make_tiny_decoder(**parts), context=CONTEXT)


def test_a_temperature_on_logits_of_partly_rotating_heads_is_refused():
    class Warm(Partial):
        @property
        def temperature(self):
            return 1.5

    with pytest.raises(ConfigError, match=r"rope\.temperature_on=logits with a rope that rotates a part of each head"):
        build_rope_parameters(Warm(fraction=0.5), 16)
    build_rope_parameters(Partial(fraction=0.5), 16)


def test_yarn_with_open_ends_is_divisors_below_a_layer_type():
    """transformers reads `truncate` beside the layer types, where it never stands."""
    rule = YaRN(**TO, truncate=False)
    assert build_rope_parameters(rule, 16)[0]["rope_type"] == "yarn"
    assert build_rope_parameters(rule, 16, nested=True)[0]["rope_type"] == "longrope"
    assert build_rope_parameters(YaRN(**TO), 16, nested=True)[0]["rope_type"] == "yarn"


GIVEN = {"max_position_embeddings": 64, "model_type": "llama"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"rope_type": "yran"},
            r"rope_type=yran cannot be imported; did you mean yarn\?; aptlab reads default, dynamic, ",
        ),
        (
            {"rope_type": "axial"},
            r"rope_type=axial cannot be.*default, dynamic, linear, llama3, longrope, proportional, yarn\. Its",
        ),
        ({"rope_type": "linear"}, r"factor=None in config\.json is not a number, and the rope needs it"),
        ({"rope_type": "longrope", "short_factor": 3}, r"short_factor=3 in config\.json is not a list of numbers"),
        ({"partial_rotary_factor": 0.5}, r"partial_rotary_factor=0\.5 cannot be imported with model_type=llama: its"),
    ],
)
def test_ropes_that_cannot_be_read_are_refused(given, message):
    with pytest.raises(ConfigError, match=message):
        read_rope_rule(GIVEN | {"rope_parameters": given})


def test_every_rule_with_a_rope_type_is_read_from_it():
    """A rule that declares one is found, also where nothing else imports its file."""
    found = {(rule.hf_type, rule.hf_heads): rule for rule in list_hf_rules()}
    assert found["default", ("whole",)] is Standard
    assert found["default", ("part",)] is Partial
    assert {kind for kind, _ in found} == {"default", "dynamic", "linear", "llama3", "longrope", "proportional", "yarn"}
    with pytest.raises(ConfigError, match=r"rope=NTK cannot be read from a config\.json: no rope_type names it"):
        NTK.from_hf(HFSource({}, GIVEN))


def test_a_rule_that_rotates_whole_heads_alone_is_refused_for_a_part(monkeypatch):
    monkeypatch.setattr(YaRN, "hf_heads", ("whole",))
    given = {"rope_type": "yarn", "partial_rotary_factor": 0.75, "rope_theta": 100.0}
    with pytest.raises(ConfigError, match=r"partial_rotary_factor=0\.75 with rope_type=yarn cannot be imported"):
        parse_rope_parameters(given, {"model_type": "glm4"})


def test_a_stretched_rule_on_a_part_of_each_head_is_that_of_a_narrower_head():
    for whole in (Linear(factor=4.0), NTK(), Dynamic(), YaRN(), Llama3(), NTKByParts()):
        part = dataclasses.replace(whole, fraction=0.25)
        assert part.inv_freq(64) == whole.inv_freq(16)
        assert part.frequencies_at(1 << 20, 64) == whole.frequencies_at(1 << 20, 16)
        assert part.rotary_dims(64) == 16
    with pytest.raises(ConfigError, match=r"fraction=0\.3 of head_dim=10 is 3 dims, and pairs need an even"):
        YaRN(fraction=0.3).inv_freq(10)


PHI3 = ("default", "longrope")


@pytest.mark.parametrize("rule", [YaRN(fraction=0.5, temperature_on="cos_sin"), Linear(fraction=0.5)])
def test_a_layout_without_the_type_gets_divisors_of_the_part(rule):
    form = build_rope_parameters(rule, 32, types=PHI3)
    assert (form.parameters["rope_type"], form.parameters["partial_rotary_factor"]) == ("longrope", 0.5)
    read, _ = parse_rope_parameters(form.parameters, {"model_type": "phi3", "max_position_embeddings": 4096})
    assert read.inv_freq(32) == pytest.approx(rule.inv_freq(32), rel=1e-12)


def test_frequencies_that_go_by_length_have_no_divisors():
    with pytest.raises(
        ConfigError, match=r"^rope=Dynamic with rope\.fraction=0\.5 cannot be exported .* rope\.fraction=1"
    ):
        build_rope_parameters(Dynamic(fraction=0.5), 32, types=PHI3)


def test_a_factor_that_contradicts_the_lengths_is_warned_of():
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
    (line,) = describe_factor_mismatch(yarn, GIVEN)
    assert line.startswith("warning: rope_parameters.factor=4 and max_position_embeddings=64 / ")
    assert "original_max_position_embeddings=32 = 2 contradict each other; the rope uses factor=4" in line
    assert describe_factor_mismatch(yarn | {"factor": 2.0}, GIVEN) == []
    assert describe_factor_mismatch({"rope_type": "llama3", "factor": 8.0}, GIVEN) == []
    assert describe_factor_mismatch({"rope_type": "yarn", "factor": 4.0}, GIVEN) == []


def test_the_norm_after_rotation_takes_the_eps_of_the_norms():
    from aptlab.nn.positions.rope import IRope, Standard

    net = make_tiny_decoder(rope=IRope(interval=2), norm=partial(RMSNorm, eps=0.01))
    assert describe_decoder(net, context=CONTEXT).config["use_qk_norm"] is True
    assert net.blocks[0].attention.layer_positions.norm_eps == 0.01
    net.swap_rope(IRope(inner=Standard(base=100.0), interval=2))
    assert net.blocks[0].attention.layer_positions.norm_eps == 0.01
