"""Nested feed-forwards: a width is the prefix of one layer, to the last bit."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.checkpoint import checkpoint

from aptlab.errors import ConfigError
from aptlab.nn.context import ForwardContext
from aptlab.nn.ffn import GELU, ClampedSwiGLU, GeGLU, MatFormer, SwiGLU
from aptlab.nn.shape import Shape
from aptlab.nn.width import count_units, spread_width
from tests.reference import ffn as dense
from tests.reference import matformer as reference

SHAPE = Shape(dim=12, depth=1, heads=2, hidden=24)
NESTED = MatFormer(granularities=(1, 0.75, 0.5, 0.125))
KINDS = {
    "swiglu": SwiGLU,
    "gelu": GELU,
    "geglu": partial(GeGLU, approximate="tanh"),
    "clamped": partial(ClampedSwiGLU, limit=0.3),
}


def join_clamped(g: float, u: float) -> float:
    g, u = min(g, 0.3), max(-0.3, min(u, 0.3))
    return g / (1 + math.exp(-1.702 * g)) * (u + 1)


JOINS = {
    "swiglu": lambda g, u: g / (1 + math.exp(-g)) * u,
    "geglu": lambda g, u: dense.gelu_tanh(g) * u,
    "clamped": join_clamped,
}


def at(width: float) -> ForwardContext:
    context = ForwardContext(1)
    context.widths = (width,)
    return context


def make(kind: str, *, bias: bool = True, nested: MatFormer | None = NESTED, **rest: Any) -> Any:
    torch.manual_seed(0)
    layer = KINDS[kind](SHAPE, bias=bias, nested=nested, **rest)
    for name, weight in layer.named_parameters():
        torch.nn.init.normal_(weight, std=0.5 if name.endswith("weight") else 0.1)
    return layer


@pytest.mark.parametrize("width", NESTED.granularities)
@pytest.mark.parametrize("kind", KINDS)
def test_a_width_is_the_papers_slice(kind, width):
    layer, x = make(kind).double(), torch.randn(2, 3, 12, dtype=torch.float64)
    w = {name: weight.detach().numpy() for name, weight in layer.named_parameters()}
    units, down = int(24 * width), (w["down.weight"], w["down.bias"])
    rows = []
    for row in x.numpy().reshape(-1, 12):
        if kind == "gelu":
            rows.append(reference.nested_ffn(row, w["up.weight"], w["up.bias"], *down, units, dense.gelu_exact))
            continue
        (gate, up), (gate_bias, up_bias) = np.split(w["gate_up.weight"], 2), np.split(w["gate_up.bias"], 2)
        rows.append(reference.nested_gated(row, gate, gate_bias, up, up_bias, *down, units, JOINS[kind]))
    assert np.abs(layer(x, at(width)).detach().numpy().reshape(-1, 12) - np.stack(rows)).max() < 1e-12


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_whole_width_is_the_dense_layer_and_has_its_weights(kind, bias):
    nested, plain, x = make(kind, bias=bias), make(kind, bias=bias, nested=None), torch.randn(2, 3, 12)
    assert nested.state_dict().keys() == plain.state_dict().keys()
    assert torch.equal(nested(x, at(1.0)), plain(x, ForwardContext(1)))
    assert torch.equal(nested(x, ForwardContext(1)), plain(x, ForwardContext(1)))
    assert (nested.widths, plain.widths) == ((1.0, 0.75, 0.5, 0.125), (1.0,))


@pytest.mark.parametrize("width", [0.75, 0.125])
@pytest.mark.parametrize("kind", KINDS)
def test_rows_beyond_the_slice_get_no_gradient_and_all_others_do(kind, width):
    layer, units = make(kind), int(24 * width)
    layer(torch.randn(4, 7, 12), at(width)).square().sum().backward()
    for name, weight in layer.named_parameters():
        if name == "down.bias":
            assert (weight.grad != 0).all()
            continue
        parts = [weight.grad.T] if name == "down.weight" else weight.grad.chunk(layer.parts)
        for part in parts:
            assert (part[units:] == 0).all()
            assert (part[:units] != 0).any(-1).all() if part.ndim > 1 else (part[:units] != 0).all()


def test_a_width_is_kept_when_its_activations_are_computed_again():
    layer, x = make("swiglu"), torch.randn(2, 3, 12, requires_grad=True)
    plain = torch.autograd.grad(layer(x, at(0.5)).square().sum(), [x, *layer.parameters()])
    again = checkpoint(layer, x, at(0.5), use_reentrant=False)
    found = torch.autograd.grad(again.square().sum(), [x, *layer.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(plain, found, strict=True))


def test_dropout_is_on_what_a_slice_writes():
    layer = make("swiglu", dropout=0.5).train()
    assert 0.3 < (layer(torch.randn(4, 8, 12), at(0.5)) == 0).float().mean() < 0.7


@pytest.mark.parametrize(
    ("granularities", "message"),
    [
        ((0.5, 0.25), r"^granularities=\[0.5, 0.25\] lacks 1, the whole layer, which the others are nested in"),
        ((1, 0.5, 0), r"^granularities=\[1, 0.5, 0\]: 0 is no width; give shares of the hidden units in \(0, 1\]"),
        ((1, 2), r": 2 is no width"),
        ((1, 0.5, 0.5), r"names a width twice"),
    ],
)
def test_granularities_that_nest_nothing_are_refused(granularities, message):
    with pytest.raises(ConfigError, match=message):
        MatFormer(granularities=granularities)


def test_a_width_that_is_no_whole_number_of_units_is_refused_with_those_that_are_near():
    message = (
        r"^width 0\.3 of a hidden size 64 is 19\.2 units, and a slice has a whole number of them; "
        r"use 0\.296875 \(19 units\) or 0\.3125 \(20 units\), or another size"
    )
    with pytest.raises(ConfigError, match=message):
        SwiGLU(Shape(dim=8, depth=1, heads=2, hidden=64), nested=MatFormer(granularities=(1, 0.3)))
    with pytest.raises(ConfigError, match=r"is 0\.5 units.* use 1 \(1 units\), or another size"):
        count_units(1, 0.5)
    assert [count_units(10, share) for share in (0.7, 0.1, 1.0)] == [7, 1, 10]


def test_a_width_that_a_layer_does_not_have_is_refused():
    with pytest.raises(ConfigError, match=r"^width=0\.3: layer 0 has the widths 1, 0\.75, 0\.5, 0\.125; use one of"):
        make("swiglu")(torch.randn(1, 1, 12), at(0.3))
    with pytest.raises(ConfigError, match=r"^width=0\.5: layer 0 has no nested layer.*; ffn=matformer objective=elas"):
        make("swiglu", nested=None)(torch.randn(1, 1, 12), at(0.5))


@pytest.mark.parametrize(
    ("width", "message"),
    [
        ([1, 0.5], r"^width=\[1,0\.5\] has 2 numbers for 3 blocks; give one for each block, or one number for all"),
        (0, r"^width=0 is no share of a layer's hidden units; give a number in \(0, 1\]"),
        ([1, 1, 1.5], r"^width=1\.5 is no share"),
    ],
)
def test_a_width_that_is_none_is_refused(width, message):
    with pytest.raises(ConfigError, match=message):
        spread_width(width, 3)
