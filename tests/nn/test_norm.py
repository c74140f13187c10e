"""Norms against float64 references, and their dtypes."""

import numpy as np
import pytest
import torch

from aptlab.nn.norm import LayerNorm, RMSNorm
from tests.reference.norm import layer_norm, rms_norm


def filled(layer, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for weight in layer.parameters():
        torch.nn.init.normal_(weight, 1.0, 0.5, generator=generator)
    return layer


def rows(*size):
    return torch.randn(*size, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 3 + 1


@pytest.mark.parametrize("eps", [1e-5, 1e-2])
@pytest.mark.parametrize(("kind", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6)])
def test_norms_are_the_papers(eps, kind, tolerance):
    rms, layer = filled(RMSNorm(24, eps=eps)).to(kind), filled(LayerNorm(24, eps=eps)).to(kind)
    bare = filled(LayerNorm(24, eps=eps, bias=False)).to(kind)
    x = rows(2, 3, 24).to(kind)
    for module, expect in (
        (rms, lambda row: rms_norm(row, rms.weight.tolist(), eps)),
        (layer, lambda row: layer_norm(row, layer.weight.tolist(), layer.bias.tolist(), eps)),
        (bare, lambda row: layer_norm(row, bare.weight.tolist(), None, eps)),
    ):
        got = module(x).detach().double().numpy().reshape(-1, 24)
        expected = np.stack([expect(row) for row in x.double().numpy().reshape(-1, 24)])
        assert np.abs(got - expected).max() < tolerance


@pytest.mark.parametrize("make", [RMSNorm, LayerNorm])
def test_low_precision_rounds_once(make):
    layer, x = filled(make(24)), rows(4, 24).bfloat16()
    exact = copy_of(layer, x)
    assert layer(x).dtype == torch.bfloat16
    assert torch.equal(layer(x), exact)


def copy_of(layer, x):
    return layer(x.float()).bfloat16()


def test_large_bfloat16_values_do_not_overflow():
    assert RMSNorm(8)(torch.full((1, 8), 1e18).bfloat16()).isfinite().all()


@pytest.mark.parametrize("make", [RMSNorm, LayerNorm])
def test_zeros_stay_finite_forward_and_backward(make):
    x = torch.zeros(2, 8, requires_grad=True)
    out = make(8)(x)
    out.sum().backward()
    assert torch.equal(out, torch.zeros(2, 8))
    assert x.grad is not None
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("make", [RMSNorm, LayerNorm])
def test_gradients_are_right_in_float64(make):
    layer = filled(make(6)).double()
    assert torch.autograd.gradcheck(layer, rows(2, 6).requires_grad_())
