"""Each tier against its paper in float64, what it does not go with, and what it costs."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from aptlab.errors import AptlabError, ConfigError
from aptlab.nn.attention import FullAttention, LinearAttention, LogitRule
from aptlab.nn.attention.rotation import rotate_queries_keys
from aptlab.nn.context import ForwardContext
from aptlab.nn.memory import (
    InfiniMemory,
    KNNMemory,
    NoMemory,
    SegmentMemory,
    TitansContextMemory,
    TitansGateMemory,
    XLMemory,
)
from aptlab.nn.memory.mlp import Carried, MemoryInputs, MLPWeights, measure_surprise, read_mlp, update_memory
from aptlab.nn.positions.bias import ALiBi, CoPE
from aptlab.nn.positions.rope import Dynamic, IRope, NoRope, Standard, XPos
from aptlab.nn.segments import count_state_bytes
from aptlab.nn.shape import Shape
from aptlab.nn.window import SlidingWindow
from aptlab.optim import AdamW
from aptlab.testing import decode_in_chunks, make_random_tokens, make_tiny_decoder
from tests.reference import memory as reference

SHAPE = Shape(dim=16, depth=2, heads=4, kv_heads=2, head_dim=8, hidden=16)
TOKENS = 17


def read_whole(net: Any, tokens: Tensor, sizes: list[int], **given: Tensor) -> Tensor:
    states: Any = {}
    logits, begin = [], 0
    with torch.no_grad():
        for size in sizes:
            part = slice(begin, begin + size)
            out = net(tokens[:, part], states=states, **{name: value[:, part] for name, value in given.items()})
            states, begin, logits = out.states, begin + size, [*logits, out.logits]
    return torch.cat(logits, 1)


@pytest.mark.parametrize(
    "parts",
    [{}, {"rope": NoRope(), "bias": ALiBi}, {"bias": CoPE}, {"attention": partial(FullAttention, sinks=True)}],
    ids=["rope", "alibi", "cope", "sinks"],
)
def test_xl_with_a_long_memory_is_full_attention(parts):
    tokens = make_random_tokens(2, TOKENS)
    names = torch.tensor([[1] * 6 + [2] * 11, [4] * 17])
    given = {"segments": names, "positions": torch.tensor([[*range(6), *range(11)], [*range(17)]])}
    full = make_tiny_decoder(shape=SHAPE, **parts).double()
    net = make_tiny_decoder(shape=SHAPE, memory=partial(XLMemory, mem_len=TOKENS), **parts).double()
    with torch.no_grad():
        expected = full(tokens, **given).logits
    for sizes in ([5, 5, 7], [1] * TOKENS):
        assert (read_whole(net, tokens, sizes, **given) - expected).abs().max() < 1e-9
    single = make_tiny_decoder(shape=SHAPE, memory=partial(XLMemory, mem_len=TOKENS), **parts)
    assert (read_whole(single, tokens, [5, 5, 7], **given).double() - expected).abs().max() < 2e-5


def test_xl_of_same_length_is_a_window():
    tokens = make_random_tokens(2, TOKENS)
    window = partial(FullAttention, window=SlidingWindow(size=5))
    with torch.no_grad():
        expected = make_tiny_decoder(shape=SHAPE, attention=window).double()(tokens).logits
    net = make_tiny_decoder(shape=SHAPE, memory=partial(XLMemory, mem_len=5, same_length=True)).double()
    for sizes in ([TOKENS], [4, 8, 5]):
        assert (read_whole(net, tokens, sizes) - expected).abs().max() < 1e-9


def test_gradients_do_not_go_into_the_memory_of_xl_and_knn():
    tokens = make_random_tokens(1, 12)
    for factory in (partial(XLMemory, mem_len=8), partial(KNNMemory, segment=6, size=6, layers=None)):
        net = make_tiny_decoder(shape=SHAPE, memory=factory)
        first = net(embeds=(begin := net.embed(tokens[:, :6]).detach().requires_grad_()), states={})
        net(tokens[:, 6:], states=first.states).logits.sum().backward()
        assert begin.grad is None or not begin.grad.any()


def make_layer(factory: Any, **parts: Any) -> Any:
    """A layer in float64 whose gates and scales differ from head to head."""
    layer = make_tiny_decoder(shape=SHAPE, memory=factory, **parts).double().blocks[0].attention
    with torch.no_grad():
        layer.gate.bias.copy_(torch.tensor([-1.0, 0.3, 0.9, 2.0]))
    return layer


def split_reference(layer: Any, x: Tensor) -> list[tuple[Any, ...]]:
    """(q, k, v, rotated q, rotated k) of each query head as arrays [T, D]."""
    attention = layer.attention
    qk, v = attention.split_heads(x).split([6, 2], dim=1)
    rotated = rotate_queries_keys(attention, qk, ForwardContext(x.shape[1]))
    q, k = qk.split([4, 2], dim=1)
    each = [(q[0, h], k[0, h // 2], v[0, h // 2], rotated[0][0, h], rotated[1][0, h // 2]) for h in range(4)]
    return [tuple(x.detach().numpy() for x in one) for one in each]


@pytest.mark.parametrize("update", ["linear", "delta"])
def test_infini_is_the_paper_head_by_head(update):
    layer = make_layer(partial(InfiniMemory, segment=5, update=update))
    x = torch.randn(1, TOKENS, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    heads = [
        reference.infini(*one, segment=5, beta=beta, delta=update == "delta")
        for one, beta in zip(split_reference(layer, x), layer.gate.bias.tolist(), strict=True)
    ]
    expected = layer.attention.merge_heads(torch.tensor(np.array(heads)).unsqueeze(0))
    with torch.no_grad():
        assert (layer(x, ForwardContext(TOKENS)) - expected).abs().max() < 1e-12


def test_a_linear_memory_of_one_segment_is_linear_attention():
    layer = make_layer(partial(InfiniMemory, segment=5))
    with torch.no_grad():
        layer.gate.bias.fill_(60.0)  # the memory alone
        x = torch.randn(1, 10, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        got = layer(x, ForwardContext(10))[:, 5:]
        qk, v = layer.attention.split_heads(x).split([6, 2], dim=1)
        q, k = (torch.nn.functional.elu(part) + 1 for part in qk.split([4, 2], dim=1))
        k, v = (part.repeat_interleave(2, dim=1)[:, :, :5] for part in (k, v))
        weights = q[:, :, 5:] @ k.mT
        expected = layer.attention.merge_heads(weights @ v / weights.sum(-1, keepdim=True))
    assert (got - expected).abs().max() < 1e-12


def test_knn_is_the_paper_head_by_head():
    layer = make_layer(partial(KNNMemory, segment=5, size=8, neighbors=3, layers=None))
    with torch.no_grad():
        layer.scale.copy_(torch.tensor([1.0, 3.0, 8.0, 20.0]))
    x = torch.randn(1, TOKENS, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    heads = [
        reference.knn(*one[:3], segment=5, size=8, neighbors=3, scale=scale, bias=bias)
        for one, scale, bias in zip(
            split_reference(layer, x), layer.scale.tolist(), layer.gate.bias.tolist(), strict=True
        )
    ]
    expected = layer.attention.merge_heads(torch.tensor(np.array(heads)).unsqueeze(0))
    with torch.no_grad():
        assert (layer(x, ForwardContext(TOKENS)) - expected).abs().max() < 1e-12


@pytest.mark.parametrize("chunk", [4, TOKENS])
def test_the_memory_of_titans_is_the_paper_token_by_token(chunk):
    generator = torch.Generator().manual_seed(0)
    k, v, q = (torch.randn(2, 2, TOKENS, 4, generator=generator, dtype=torch.float64) for _ in range(3))
    alpha, eta, theta = (torch.rand(2, 2, TOKENS, generator=generator, dtype=torch.float64) for _ in range(3))
    sizes = ((2, 2, 8, 4), (2, 2, 4, 8))
    weights = MLPWeights(*(torch.randn(s, generator=generator, dtype=torch.float64) * 0.4 for s in sizes))
    carried, outs = Carried(weights, MLPWeights(*(torch.zeros_like(x) for x in weights))), []
    for begin in range(0, TOKENS, chunk):
        x = (k, v, q, torch.log1p(-alpha), eta.log(), 0.1 * theta)
        inputs = MemoryInputs(*(one[:, :, begin : begin + chunk] for one in x))
        every = torch.ones(2, inputs.k.shape[2], dtype=torch.bool)
        chain = every.unsqueeze(1).expand(-1, every.shape[1], -1).tril()
        out, carried = update_memory(inputs, carried.weights, carried, chain, every)
        outs.append(out)
    got = torch.cat(outs, 2)
    for b, h in ((0, 0), (1, 1)):
        given = [x[b, h].numpy() for x in (k, v, q, alpha, eta, 0.1 * theta, *weights)]
        expected, after, push = reference.titans(*given, chunk=chunk)
        assert np.abs(got[b, h].numpy() - expected).max() < 1e-12
        for mine, theirs in zip((*carried.weights, *carried.surprise), (*after, *push), strict=True):
            assert np.abs(mine[b, h].numpy() - theirs).max() < 1e-12


def test_the_gradient_of_the_memory_is_that_of_its_loss():
    generator = torch.Generator().manual_seed(0)
    k, v = (torch.randn(1, 1, 1, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    sizes = ((1, 1, 8, 4), (1, 1, 4, 8))
    weights = MLPWeights(*(torch.randn(size, generator=generator, dtype=torch.float64) for size in sizes))
    given = MLPWeights(*(x.clone().requires_grad_() for x in weights))
    first, second = torch.autograd.grad((read_mlp(given, k) - v).square().sum(), given)
    found = measure_surprise(weights, k, v)
    assert torch.allclose(found.d.mT @ k, first, atol=1e-12)
    assert torch.allclose(found.e.mT @ found.h, second, atol=1e-12)


def test_a_gate_takes_no_decay_and_a_rate_of_its_own():
    net = make_tiny_decoder(shape=SHAPE, memory=partial(InfiniMemory, segment=5, gate_lr_scale=7.0))
    decayed, plain, gates = AdamW(lr=0.01).make(net).param_groups
    assert [id(weight) for weight in gates["params"]] == [id(block.attention.gate.bias) for block in net.blocks]
    assert (gates["lr"], gates["weight_decay"]) == (pytest.approx(0.07), 0.0)
    assert (decayed["lr"], plain["lr"]) == (0.01, 0.01)


def test_a_reset_draws_gates_anew():
    net = make_tiny_decoder(shape=SHAPE, memory=partial(InfiniMemory, segment=5, gate_init=-3.0))
    for block in net.blocks:
        block.attention.gate.bias.data.fill_(9.0)
    net.reset_parameters()
    assert all(block.attention.gate.bias.tolist() == [-3.0] * 4 for block in net.blocks)


def test_no_memory_leaves_the_model_as_it_is():
    plain, none = (make_tiny_decoder(shape=SHAPE, **parts) for parts in ({}, {"memory": NoMemory}))
    assert plain.state_dict().keys() == none.state_dict().keys()
    tokens = make_random_tokens(1, 6)
    assert torch.equal(plain(tokens).logits, none(tokens).logits)


def test_layers_without_the_search_see_their_own_segment():
    net = make_tiny_decoder(shape=SHAPE, memory=partial(KNNMemory, segment=4, layers=[-1]))
    kinds = [type(block.attention) for block in net.blocks]
    assert kinds == [SegmentMemory, KNNMemory]
    tokens = make_random_tokens(1, 12)
    with torch.no_grad():
        assert torch.allclose(decode_in_chunks(net, tokens, [1] * 12), net(tokens).logits, atol=2e-5)


def test_bytes_of_state_are_as_documented():
    k, d, w = 2, 8, 5
    local = 2 * (2 * k * w * d * 4 + w * 8) + 2 * 2 * 8  # two rows, with positions, count and document
    net = make_tiny_decoder(shape=SHAPE, memory=partial(InfiniMemory, segment=w))
    states = net(make_random_tokens(2, 9)).states
    assert count_state_bytes(states["0/attention"]) == local + 2 * (2 * k * d * (d + 1) * 4)
    net = make_tiny_decoder(shape=SHAPE, memory=partial(XLMemory, mem_len=w))
    assert count_state_bytes(net(make_random_tokens(2, 9)).states["0/attention"]) == local


SLIDING = partial(FullAttention, window=SlidingWindow(size=4))
BLOCKS = IRope(inner=Standard(), interval=2, chunk=4, growth=None, qk_norm=False)
SCALED = partial(FullAttention, logits=LogitRule(scale=0.3))
CONFLICTS = [
    (
        InfiniMemory,
        {"attention": LinearAttention},
        "memory=infini is built around softmax attention, .*LinearA",
    ),
    (
        InfiniMemory,
        {"attention": SLIDING},
        r"memory=infini decides itself .*layer 0 has window.size=4; use",
    ),
    (XLMemory, {"attention": SLIDING}, r"use attention=full with memory.same_length=true, which is a window"),
    (partial(KNNMemory, layers=None), {"attention": SLIDING}, "memory=knn decides itself .*window.size=4"),
    (XLMemory, {"rope": BLOCKS}, r"memory=xl reaches beyond a segment, .* blocks of 4 positions; use"),
    (
        partial(KNNMemory, layers=None),
        {"rope": BLOCKS},
        "memory=knn reaches beyond a segment, .* blocks of 4 pos",
    ),
    (partial(KNNMemory, layers=None), {"attention": SCALED}, "memory=knn scales cosines itself, .*scale=0.3"),
    (XLMemory, {"rope": XPos()}, "memory=xl keeps keys as they were rotated, and rope XPos also decays"),
    (InfiniMemory, {"rope": Dynamic(original_len=8)}, "rope Dynamic rotates by the length of the whole text"),
    (KNNMemory, {}, r"layers=\[-4\] of the memory has -4, and the model has layers 0 to 1, from the end -1 to -2"),
    (partial(InfiniMemory, update="deltas"), {}, "update='deltas'"),
    (partial(TitansGateMemory, segment=6, chunk=4), {}, "chunk=4 does not divide segment=6 of memory=titans_mag"),
    (TitansContextMemory, {"bias": ALiBi}, "memory=titans_mac has tokens without a position, which bias=ALiBi"),
]


@pytest.mark.parametrize(("factory", "parts", "message"), CONFLICTS, ids=range(len(CONFLICTS)))
def test_what_does_not_go_together_is_said_when_the_model_is_built(factory, parts, message):
    with pytest.raises(ConfigError, match=message):
        make_tiny_decoder(shape=SHAPE, memory=factory, **parts)


def test_a_memory_reads_from_left_to_right():
    net = make_tiny_decoder(shape=SHAPE, memory=XLMemory)
    with pytest.raises(AptlabError, match="memory=xl reads from left to right, and this pass is not causal"):
        net.blocks[0].attention(torch.randn(1, 4, 16), ForwardContext(4, causal=False))
