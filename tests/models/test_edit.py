"""A width as a model of its own, and the order of hidden units."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch

from aptlab.errors import AptlabError, ConfigError
from aptlab.models.cost import estimate_cost
from aptlab.models.edit import (
    extract_width,
    list_dense_layers,
    measure_activation_importance,
    measure_weight_importance,
    sort_hidden_units,
)
from aptlab.nn.ffn import GELU, GeGLU, MatFormer, SwiGLU
from aptlab.testing import make_random_tokens, make_tiny_decoder

TOKENS = make_random_tokens(2, 9)
WIDTHS = [1.0, 0.5, 0.25, 0.125, [1.0, 0.125, 0.5]]


def make_nested(kind: Any = SwiGLU, **rest: Any) -> Any:
    return make_tiny_decoder(ffn=partial(kind, nested=MatFormer(), bias=True), **rest)


@pytest.mark.parametrize("width", WIDTHS, ids=str)
@pytest.mark.parametrize("kind", [SwiGLU, GELU, GeGLU])
def test_an_extracted_width_computes_the_bits_of_the_slice(kind, width):
    net = make_nested(kind)
    alone = extract_width(net, width)
    for tokens in (TOKENS, TOKENS[:1, :1], make_random_tokens(3, 33)):
        assert torch.equal(alone(tokens).logits, net(tokens, width=width).logits)
    caches = [one.new_cache(2, 9) for one in (alone, net)]
    for part in TOKENS.split([4, 1, 4], 1):
        found = alone(part, cache=caches[0]).logits, net(part, cache=caches[1], width=width).logits
        assert torch.equal(*found)


@pytest.mark.parametrize("width", WIDTHS, ids=str)
def test_an_extracted_width_is_dense_and_has_the_parameters_that_the_counter_says(width):
    net = make_nested()
    alone, price = extract_width(net, width), estimate_cost(net, 24, width)
    assert alone.widths == (1.0,)
    assert estimate_cost(alone, 24) == price
    sizes = [int(48 * one) for one in ([width] * 3 if isinstance(width, float) else width)]
    assert [alone.shape.count_hidden(layer) for layer in range(3)] == sizes
    assert isinstance(alone.shape.hidden, int) == (len(set(sizes)) == 1)
    assert net.shape.hidden == 48


@pytest.mark.parametrize("share", [False, True])
def test_what_an_extracted_width_shares_with_its_model(share):
    net = make_nested()
    alone = extract_width(net, 0.5, share=share)
    mine = {weight.data_ptr() for weight in net.parameters()}
    shared = {name for name, weight in alone.named_parameters() if weight.data_ptr() in mine}
    cut = (".ffn.gate_up.weight", ".ffn.gate_up.bias", ".ffn.down.weight")
    assert shared == ({name for name, _ in alone.named_parameters() if not name.endswith(cut)} if share else set())
    assert (alone.head.weight is alone.embed.weight) == net.tied


def test_an_extracted_width_learns_alone():
    net = make_nested()
    before, alone = net(TOKENS).logits, extract_width(net, 0.25)
    alone(TOKENS).logits.square().mean().backward()
    with torch.no_grad():
        for weight in alone.parameters():
            weight -= 0.1 * weight.grad
    assert torch.equal(net(TOKENS).logits, before)
    assert all(weight.grad is None for weight in net.parameters())


def test_a_model_without_that_width_is_refused():
    with pytest.raises(ConfigError, match=r"^width=0\.5: block 0 has no nested layer"):
        extract_width(make_tiny_decoder(), 0.5)
    with pytest.raises(AptlabError, match=r"^FullAttention has the widths \(1\.0,\) and no keep_width to become 0\.5"):
        make_tiny_decoder().each_block()[0].attention.keep_width(0.5)


@pytest.mark.parametrize("kind", [SwiGLU, GELU, GeGLU])
def test_a_sorted_network_computes_what_it_did_and_its_units_are_in_order(kind):
    net = make_tiny_decoder(ffn=partial(kind, bias=True)).double()
    before, read = net(TOKENS).logits, lambda: net(TOKENS)
    for measure in (measure_weight_importance, partial(measure_activation_importance, run=read)):
        sort_hidden_units(net, measure(net))
        assert torch.allclose(net(TOKENS).logits, before, rtol=1e-9)
        for importance in measure(net).values():
            assert torch.allclose(importance, importance.sort(descending=True).values, rtol=1e-6)


def test_importance_is_that_of_a_loop():
    net = make_tiny_decoder().double()
    layer, states = net.each_block()[1].ffn, []
    hook = layer.register_forward_pre_hook(lambda _, given: states.append(given[0]))
    found = measure_activation_importance(net, lambda: [net(TOKENS), net(TOKENS[:, :2])])["1/ffn"]
    hook.remove()
    gate, up = layer.gate_up.weight.chunk(2)
    for unit in range(48):
        values = [
            (torch.nn.functional.silu(gate[unit] @ x) * (up[unit] @ x)).item()
            for state in states
            for x in state.flatten(0, 1)
        ]
        assert found[unit].item() == pytest.approx((sum(v * v for v in values) / len(values)) ** 0.5, rel=1e-5)
    weights = measure_weight_importance(net)["1/ffn"]
    expected = gate[7].abs().sum() + up[7].abs().sum() + layer.down.weight[:, 7].abs().sum()
    assert weights[7].item() == pytest.approx(expected.item(), rel=1e-6)
    assert [site for site, _ in list_dense_layers(net)] == ["0/ffn", "1/ffn", "2/ffn"]


def test_important_units_are_kept_by_small_widths():
    """Where a few units do nearly all the work, a slice of the sorted network is much nearer to it."""
    net = make_tiny_decoder(ffn=partial(SwiGLU, nested=MatFormer()))
    generator = torch.Generator().manual_seed(1)
    for _, layer in list_dense_layers(net):
        layer.down.weight.data[:, torch.randperm(48, generator=generator)[:36]] *= 0.01
        layer.gate_up.weight.data[:48][(layer.down.weight.abs().amax(0) < 0.1)] *= 0.1

    def gap() -> float:
        return (net(TOKENS, width=0.25).logits - net(TOKENS).logits).abs().mean().item()

    before = gap()
    sort_hidden_units(net, measure_activation_importance(net, lambda: net(TOKENS)))
    assert gap() < before / 3


def test_importance_of_nothing_is_refused():
    with pytest.raises(AptlabError, match=r"^no token went through 0/ffn, 1/ffn, 2/ffn; importance needs a batch"):
        measure_activation_importance(make_tiny_decoder(), lambda: None)
