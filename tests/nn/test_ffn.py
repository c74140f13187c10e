"""Feed-forward layers against float64 references."""

from functools import partial

import numpy as np
import pytest
import torch

from aptlab.errors import ConfigError
from aptlab.nn.context import ForwardContext
from aptlab.nn.ffn import GELU, ClampedSwiGLU, GeGLU, SwiGLU
from aptlab.nn.shape import Shape
from tests.reference import ffn as reference

SHAPE = Shape(dim=12, depth=1, heads=2, hidden=20)
CONTEXT = ForwardContext(1)  # a feed-forward asks nothing of it


def made(kind, bias):
    torch.manual_seed(0)
    layer = kind(SHAPE, bias=bias).double()
    x = torch.randn(2, 3, 12, dtype=torch.float64)
    return layer, x, {name: weight.detach().numpy() for name, weight in layer.named_parameters()}


@pytest.mark.parametrize("bias", [False, True])
def test_swiglu_is_the_papers(bias):
    layer, x, w = made(SwiGLU, bias)
    gate, up = np.split(w["gate_up.weight"], 2)
    gate_bias, up_bias = np.split(w["gate_up.bias"], 2) if bias else (None, None)
    expected = [
        reference.swiglu(row, gate, up, w["down.weight"], gate_bias, up_bias, w.get("down.bias"))
        for row in x.numpy().reshape(-1, 12)
    ]
    assert np.abs(layer(x, CONTEXT).detach().numpy().reshape(-1, 12) - np.stack(expected)).max() < 1e-12


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("limit", [0.1, 7.0])
def test_the_clamped_gate_is_that_of_gpt_oss(bias, limit):
    layer, x, w = made(partial(ClampedSwiGLU, limit=limit), bias)
    gate, up = np.split(w["gate_up.weight"], 2)
    gate_bias, up_bias = np.split(w["gate_up.bias"], 2) if bias else (None, None)
    weights = (gate, up, w["down.weight"], gate_bias, up_bias, w.get("down.bias"))
    rows = x.numpy().reshape(-1, 12)
    expected = np.stack([reference.swiglu_clamped(row, *weights, limit=limit) for row in rows])
    assert np.abs(layer(x, CONTEXT).detach().numpy().reshape(-1, 12) - expected).max() < 1e-12


def test_the_clamp_bounds_what_goes_down_however_large_the_input():
    layer, x, _ = made(ClampedSwiGLU, False)
    layer.down.weight.data.fill_(1 / SHAPE.hidden)  # the mean of the units
    assert layer(1e9 * x, CONTEXT).abs().max() <= 7 * 8


@pytest.mark.parametrize("approximate", ["none", "tanh"])
@pytest.mark.parametrize("bias", [False, True])
def test_geglu_is_the_papers_and_with_tanh_gemmas(bias, approximate):
    layer, x, w = made(partial(GeGLU, approximate=approximate), bias)
    gate, up = np.split(w["gate_up.weight"], 2)
    gate_bias, up_bias = np.split(w["gate_up.bias"], 2) if bias else (None, None)
    curve = {"none": reference.gelu_exact, "tanh": reference.gelu_tanh}[approximate]
    expected = [
        reference.geglu(row, gate, up, w["down.weight"], gate_bias, up_bias, w.get("down.bias"), curve=curve)
        for row in x.numpy().reshape(-1, 12)
    ]
    assert np.abs(layer(x, CONTEXT).detach().numpy().reshape(-1, 12) - np.stack(expected)).max() < 1e-12


def test_the_two_gelus_of_geglu_differ_and_others_are_refused():
    exact, x, _ = made(GeGLU, False)
    tanh, _, _ = made(partial(GeGLU, approximate="tanh"), False)
    assert 1e-7 < (exact(10 * x, CONTEXT) - tanh(10 * x, CONTEXT)).abs().max().item() < 1e-2
    with pytest.raises(ConfigError, match=r"^approximate='erf'; allowed: none \(exact\), tanh"):
        GeGLU(SHAPE, approximate="erf")


@pytest.mark.parametrize("bias", [False, True])
def test_gelu_is_the_exact_one(bias):
    layer, x, w = made(GELU, bias)
    expected = [
        reference.gelu(row, w["up.weight"], w["down.weight"], w.get("up.bias"), w.get("down.bias"))
        for row in x.numpy().reshape(-1, 12)
    ]
    assert np.abs(layer(x, CONTEXT).detach().numpy().reshape(-1, 12) - np.stack(expected)).max() < 1e-12


@pytest.mark.parametrize("kind", [SwiGLU, GELU, GeGLU])
def test_dropout_drops_while_training_only(kind):
    torch.manual_seed(0)
    layer, x = kind(SHAPE, dropout=0.5), torch.randn(4, 8, 12)
    assert torch.equal(layer.eval()(x, CONTEXT), layer.eval()(x, CONTEXT))
    dropped = (layer.train()(x, CONTEXT) == 0).float().mean().item()
    assert 0.35 < dropped < 0.65


@pytest.mark.parametrize(("kind", "matrices"), [(SwiGLU, 3), (GELU, 2), (GeGLU, 3)])
def test_parameter_count(kind, matrices):
    assert sum(weight.numel() for weight in kind(SHAPE).parameters()) == matrices * 12 * 20
