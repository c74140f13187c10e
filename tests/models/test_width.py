"""A decoder at one width, or at one for each block."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from aptlab.errors import ConfigError
from aptlab.models.cost import estimate_cost
from aptlab.nn.ffn import GELU, MatFormer, SwiGLU
from aptlab.nn.shape import Shape
from aptlab.testing import make_random_tokens, make_tiny_decoder
from aptlab.testing.tiny import SHAPE

WIDTHS = (1.0, 0.5, 0.25, 0.125)
TOKENS = make_random_tokens(2, 9)


def make_nested(kind: Any = SwiGLU, **rest: Any) -> Any:
    return make_tiny_decoder(ffn=partial(kind, nested=MatFormer(), bias=True), **rest)


def test_widths_are_those_that_all_nested_layers_have():
    assert make_nested().widths == WIDTHS
    assert make_tiny_decoder().widths == (1.0,)
    by_layer = [MatFormer(), MatFormer(granularities=(1, 0.5)), None]
    net = make_tiny_decoder(ffn=lambda shape, layer: SwiGLU(shape, layer=layer, nested=by_layer[layer]))
    assert net.widths == (1.0, 0.5)


def test_one_width_for_all_is_that_width_in_every_block_and_blocks_may_differ():
    net = make_nested()
    half = net(TOKENS, width=0.5).logits
    assert torch.equal(half, net(TOKENS, width=[0.5, 0.5, 0.5]).logits)
    assert torch.equal(net(TOKENS, width=1).logits, net(TOKENS).logits)
    logits = [net(TOKENS, width=[*(1.0,) * i, 0.5, *(1.0,) * (2 - i)]).logits for i in range(3)]
    assert all(not torch.equal(a, b) for a, b in zip([net(TOKENS).logits, *logits], [*logits, half], strict=True))


def test_a_width_that_a_block_does_not_have_is_refused():
    with pytest.raises(ConfigError, match=r"^width=\[1,0\.3,1\]: block 1 has the widths 1, 0\.5, 0\.25, 0\.125; use"):
        make_nested()(TOKENS, width=[1, 0.3, 1])
    with pytest.raises(ConfigError, match=r"^width=0\.5: block 0 has no nested layer, so it works in full alone"):
        make_tiny_decoder()(TOKENS, width=0.5)


@pytest.mark.parametrize("kind", [SwiGLU, GELU])
@pytest.mark.parametrize("width", [*WIDTHS, [1.0, 0.125, 0.5]])
def test_the_cost_of_a_width_is_what_torch_counts(kind, width):
    net, tokens = make_nested(kind), 24
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        net(make_random_tokens(1, tokens), width=width)
    dropped = 3 * 4 * SHAPE.heads * SHAPE.head_sizes()[2] * (tokens - 1) / 2
    assert counter.get_total_flops() / tokens == estimate_cost(net, tokens, width).forward + dropped


def test_the_cost_is_linear_in_the_width():
    net = make_nested()
    prices = {width: estimate_cost(net, 24, width) for width in WIDTHS}
    left_out = {width: prices[1.0].forward - price.forward for width, price in prices.items()}
    assert left_out == {width: round((1 - width) * 3 * 2 * 3 * 32 * 48) for width in WIDTHS}
    assert prices[1.0] == estimate_cost(net, 24)
    assert prices[0.5].parameters == sum(x.numel() for x in net.parameters()) - 3 * 24 * (3 * 32 + 2)


@pytest.mark.slow
def test_a_compiled_network_has_one_graph_for_each_width():
    torch._dynamo.reset()
    net = make_nested()
    compiled: Any = torch.compile(net, backend="eager", fullgraph=True)
    for width in (None, *WIDTHS, 0.5):
        assert torch.allclose(compiled(TOKENS, width=width).logits, net(TOKENS, width=width).logits, atol=1e-4)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 1 + len(WIDTHS)


def test_blocks_may_have_hidden_sizes_of_their_own():
    shape = Shape(dim=32, depth=3, heads=4, hidden=(48, 8, 16))
    net = make_tiny_decoder(shape=shape)
    assert [block.ffn.down.in_features for block in net.each_block()] == [48, 8, 16]
    assert estimate_cost(net, 8).parameters == sum(weight.numel() for weight in net.parameters())


@pytest.mark.parametrize(
    ("hidden", "message"),
    [
        ([48, 8], r"^hidden=\[48, 8\] has 2 sizes for depth=3 blocks; give one for each, or one number"),
        ([48, 8, 0], r"^hidden=\[48, 8, 0\]: 0 is no number of units"),
        ([48, 8, 1.5], r": 1\.5 is no number of units; give whole numbers from 1 on"),
    ],
)
def test_hidden_sizes_that_are_none_are_refused(hidden, message):
    with pytest.raises(ConfigError, match=message):
        Shape(dim=32, depth=3, heads=4, hidden=hidden)
