"""Feed-forward layers against float64 references."""

import numpy as np
import pytest
import torch

from aptlab.nn.ffn import GELU, SwiGLU
from aptlab.nn.shape import Shape
from tests.reference import ffn as reference

SHAPE = Shape(dim=12, depth=1, heads=2, hidden=20)


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
    wanted = [
        reference.swiglu(row, gate, up, w["down.weight"], gate_bias, up_bias, w.get("down.bias"))
        for row in x.numpy().reshape(-1, 12)
    ]
    assert np.abs(layer(x).detach().numpy().reshape(-1, 12) - np.stack(wanted)).max() < 1e-12


@pytest.mark.parametrize("bias", [False, True])
def test_gelu_is_the_exact_one(bias):
    layer, x, w = made(GELU, bias)
    wanted = [
        reference.gelu(row, w["up.weight"], w["down.weight"], w.get("up.bias"), w.get("down.bias"))
        for row in x.numpy().reshape(-1, 12)
    ]
    assert np.abs(layer(x).detach().numpy().reshape(-1, 12) - np.stack(wanted)).max() < 1e-12


@pytest.mark.parametrize("kind", [SwiGLU, GELU])
def test_dropout_drops_while_training_only(kind):
    torch.manual_seed(0)
    layer, x = kind(SHAPE, dropout=0.5), torch.randn(4, 8, 12)
    assert torch.equal(layer.eval()(x), layer.eval()(x))
    dropped = (layer.train()(x) == 0).float().mean().item()
    assert 0.35 < dropped < 0.65


@pytest.mark.parametrize(("kind", "matrices"), [(SwiGLU, 3), (GELU, 2)])
def test_parameter_count(kind, matrices):
    assert sum(weight.numel() for weight in kind(SHAPE).parameters()) == matrices * 12 * 20
