"""Attention with a gated branch: the formula, where it starts, and that it is causal, packed and cached."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch

from aptlab.errors import ConfigError
from aptlab.nn.attention import Attention, AutopoieticAttention, FullAttention, LinearAttention
from aptlab.nn.attention.autopoietic import CHUNK
from aptlab.nn.context import ForwardContext
from aptlab.nn.shape import Shape
from aptlab.testing.tiny import decode_in_chunks, make_random_tokens, make_tiny_decoder
from tests.reference import autopoietic as reference

SHAPE = Shape(dim=8, depth=1, heads=2, hidden=8)
GATES = ("mean", "token", "none")
INNER = (FullAttention, LinearAttention)


def open_branch(module: torch.nn.Module) -> torch.nn.Module:
    """Weights as training might leave them, so that the branch says something."""
    generator = torch.Generator().manual_seed(3)
    for part in module.modules():
        if isinstance(part, AutopoieticAttention):
            for matrix in (part.up, part.down, part.gate_in):
                if matrix is not None:
                    with torch.no_grad():
                        for weight in matrix.parameters():
                            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.5)
    return module


def make_net(gate="mean", inner=FullAttention, **rest):
    attention = partial(AutopoieticAttention, inner=inner, gate=gate)
    return open_branch(make_tiny_decoder(gain=4.0, attention=attention, **rest))


SEGMENTS = torch.tensor([[0, 0, 1, 1, 1, 1, 2, 2, 2, 3, 0, 0], [5] * 4 + [2] * 8])


def list_seen(gate, causal, row):
    """The tokens whose mean opens the gate of each token."""
    ids = row.tolist()
    if gate == "token":
        return [[t] for t in range(len(ids))]
    return [[s for s in range(len(ids)) if ids[s] == ids[t] and (s <= t or not causal)] for t in range(len(ids))]


@torch.no_grad()
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("gate", ["mean", "token"])
def test_the_branch_is_its_formula_over_the_tokens_own_document(gate, causal):
    layer = AutopoieticAttention(SHAPE, layer=0, inner=FullAttention, gate=gate, alpha=0.7, tau=0.4)
    layer = open_branch(layer).double()
    x = torch.randn(2, 12, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    context = ForwardContext(12, segments=SEGMENTS, causal=causal)
    context.enter_site("0/attention")
    got = layer(x, context) - layer.inner(x, ForwardContext(12, segments=SEGMENTS, causal=causal))
    parts = {"U": layer.down.weight.tolist(), "W": layer.gate_in.weight.tolist(), "V": layer.up.weight.tolist()}
    for b in range(2):
        seen = list_seen(gate, causal, SEGMENTS[b])
        wanted = reference.branch(x[b].tolist(), parts, layer.gate_in.bias.tolist(), 0.7 * math.tanh(0.4), seen)
        real = SEGMENTS[b] != 0
        torch.testing.assert_close(got[b][real], torch.tensor(wanted, dtype=torch.float64)[real])
    assert got[SEGMENTS != 0].isfinite().all()


@pytest.mark.parametrize("gate", GATES)
def test_training_starts_from_the_inner_attention_and_reaches_the_branch(gate):
    torch.manual_seed(0)
    layer = AutopoieticAttention(SHAPE, layer=0, inner=FullAttention, gate=gate)
    layer.reset_parameters(0.02, 1)
    x = torch.randn(1, 5, 8)
    assert torch.equal(layer(x, ForwardContext(5)), layer.inner(x, ForwardContext(5)))
    layer(x, ForwardContext(5)).square().sum().backward()
    assert layer.up.weight.grad.abs().sum() > 0


@torch.no_grad()
@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("gate", GATES)
def test_a_later_token_changes_nothing_before_it(gate, inner):
    net, tokens = make_net(gate, inner), make_random_tokens(2, 14)
    other = tokens.clone()
    other[:, 9] = (tokens[:, 9] + 1) % 61
    one, two = net(tokens).logits, net(other).logits
    assert torch.equal(one[:, :9], two[:, :9])
    assert not torch.equal(one[:, 9:], two[:, 9:])


@torch.no_grad()
@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("pieces", [[12], [5, 1, 1, 5], [1] * 12], ids=str)
def test_cached_decoding_is_the_full_pass(inner, pieces):
    net, tokens = make_net(inner=inner), make_random_tokens(2, 12)
    torch.testing.assert_close(decode_in_chunks(net, tokens, pieces), net(tokens).logits, atol=2e-5, rtol=0)


@torch.no_grad()
def test_packed_documents_are_those_alone_and_chunks_join():
    net, tokens = make_net(), make_random_tokens(1, CHUNK + 30)
    cut = CHUNK - 10
    segments = torch.ones_like(tokens)
    segments[:, cut:] = 2
    positions = torch.cat((torch.arange(cut), torch.arange(CHUNK + 30 - cut))).unsqueeze(0)
    together = net(tokens, segments=segments, positions=positions).logits
    alone = torch.cat((net(tokens[:, :cut]).logits, net(tokens[:, cut:]).logits), 1)
    torch.testing.assert_close(together, alone, atol=2e-5, rtol=0)


def test_the_plain_branch_of_its_option_has_as_many_parameters():
    shape = Shape(dim=128, depth=4, heads=4, hidden=352)
    make = partial(AutopoieticAttention, shape, layer=0, inner=FullAttention)
    layers = make(), make(gate="none", share=0.375)
    counts = [sum(weight.numel() for weight in layer.parameters()) for layer in layers]
    assert abs(counts[0] - counts[1]) == 32  # the bias of the gate


def test_what_cannot_be_is_told():
    make = partial(AutopoieticAttention, SHAPE, layer=0, inner=FullAttention)
    with pytest.raises(ConfigError, match=r"gate='maen'.*mean"):
        make(gate="maen")
    with pytest.raises(ConfigError, match=r"^tau=0 shuts the branch for ever; .*attention=full"):
        make(tau=0.0)
    assert issubclass(AutopoieticAttention, Attention)
