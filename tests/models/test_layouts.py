"""Half-split and interleaved pairs: one model in two layouts."""

from functools import partial

import pytest
import torch

from aptlab.errors import ConfigError
from aptlab.models.layouts import LAYOUTS, convert_layout, convert_qk_weights, replace_layout
from aptlab.nn.attention import FullAttention
from aptlab.nn.positions.rope import (
    IRope,
    LinearHarmonic,
    LongRoPE,
    NoRope,
    Partial,
    PerLayer,
    Proportional,
    Standard,
    YaRN,
)
from aptlab.testing import make_random_tokens, make_tiny_decoder
from tests.models.hf.making import export, gap, loaded

ROPES = {
    "standard": Standard(base=100.0),
    "yarn": YaRN(base=100.0, factor=4.0, original_len=16),
    "partial": Partial(base=100.0, fraction=0.375),
    "proportional": Proportional(base=100.0, fraction=0.5),
    "longrope": LongRoPE(base=100.0, factor=4.0, original_len=16),
    "irope": IRope(inner=Standard(base=100.0), interval=2, chunk=7),
    "per_layer": PerLayer(rules=(Standard(base=100.0), NoRope(), Partial(fraction=0.5))),
}
ATTENTIONS = {
    "plain": FullAttention,
    "bias": partial(FullAttention, bias=True),
    "qkv bias and norm": partial(FullAttention, bias="qkv", qk_norm=True),
}


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("rope", ROPES)
def test_two_layouts_give_the_same_logits_after_permutation(rope, attention):
    parts = {"attention": ATTENTIONS[attention], "gain": 4.0}
    half = make_tiny_decoder(rope=ROPES[rope], **parts)
    other = replace_layout(ROPES[rope], "interleaved")
    weights = convert_layout(half.state_dict(), half.shape, half.rope, target="interleaved")
    interleaved = make_tiny_decoder(rope=other, **parts)
    tokens = make_random_tokens(2, 40)
    with torch.no_grad():
        expected = half(tokens).logits
        assert (interleaved(tokens).logits - expected).abs().max() > 1e-2, "the layouts do not differ"
        interleaved.load_state_dict(weights)
        assert (interleaved(tokens).logits - expected).abs().max() <= 1e-5
    back = convert_layout(weights, half.shape, other, target="half")
    for name, weight in half.state_dict().items():
        assert torch.equal(back[name], weight), name
    assert replace_layout(other, "half") == replace_layout(ROPES[rope], "half")


@pytest.mark.parametrize("rotary_dims", [None, 8, 2, 0])
@pytest.mark.parametrize("sizes", [(3 * 12, 5), (3 * 12,), (12,)])
def test_converting_back_gives_equal_weights(sizes, rotary_dims):
    weight = torch.randn(*sizes)
    heads = sizes[0] // 12
    there = convert_qk_weights(weight, heads, 12, source="half", target="interleaved", rotary_dims=rotary_dims)
    back = convert_qk_weights(there, heads, 12, source="interleaved", target="half", rotary_dims=rotary_dims)
    assert torch.equal(back, weight)
    assert torch.equal(there, weight) == (rotary_dims in (2, 0))
    assert torch.equal(convert_qk_weights(weight, heads, 12, source="half", target="half"), weight)


def test_pair_i_moves_from_its_halves_to_neighbours():
    names = torch.arange(10)
    got = convert_qk_weights(names, 1, 10, rotary_dims=6)
    assert got.tolist() == [0, 3, 1, 4, 2, 5, 6, 7, 8, 9]


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("rope", ["standard", "yarn", "longrope"])
def test_an_interleaved_model_is_exported_as_half(rope, attention, tmp_path):
    net = make_tiny_decoder(rope=replace_layout(ROPES[rope], "interleaved"), attention=ATTENTIONS[attention], gain=4.0)
    if attention == "qkv bias and norm":
        with pytest.raises(ConfigError, match=r"attention\.bias=qkv cannot be exported.*Qwen 3.*bias=false or true"):
            export(net, tmp_path)
        return
    export(net, tmp_path)
    assert gap(net, loaded(tmp_path), make_random_tokens(2, 40)) <= 1e-5


def test_a_half_split_irope_is_exported_as_interleaved(tmp_path):
    rope = IRope(inner=Standard(base=100.0), interval=2, chunk=7, qk_norm=False)
    net = make_tiny_decoder(rope=rope, gain=4.0)
    export(net, tmp_path)
    assert gap(net, loaded(tmp_path), make_random_tokens(2, 40)) <= 1e-5


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"heads": 2}, r"36 rows are not heads=2 times head_dim=12; give the rows of queries or of keys alone"),
        ({"rotary_dims": 5}, r"rotary_dims=5 is not an even number in \[0, head_dim=12\]"),
        ({"rotary_dims": 14}, r"rotary_dims=14 is not an even number in \[0, head_dim=12\]"),
        ({"target": "quarter"}, "layout='quarter'; allowed: half, interleaved"),
    ],
)
def test_what_does_not_fit_is_refused(given, message):
    values = {"heads": 3, "head_dim": 12} | given
    heads, head_dim = values.pop("heads"), values.pop("head_dim")
    with pytest.raises(ConfigError, match=message):
        convert_qk_weights(torch.zeros(36), heads, head_dim, **values)


def test_an_unknown_layout_of_a_rule_is_refused():
    with pytest.raises(ConfigError, match="layout='quarter'; allowed: half, interleaved"):
        replace_layout(Standard(), "quarter")
    with pytest.raises(ConfigError, match="rope=LinearHarmonic has layout=half only; keep it"):
        replace_layout(LinearHarmonic(), "interleaved")
    assert LAYOUTS == ("half", "interleaved")
