"""The hand-written rotation beside its reference: values, gradients, strides, dtypes."""

from __future__ import annotations

import pytest
import torch

from aptlab.errors import AptlabError
from aptlab.ops.rotary import rotate_pairs, rotate_pairs_reference

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-6, torch.bfloat16: 1.6e-2, torch.float16: 2e-3}


def angles(tokens: int, pairs: int) -> tuple[torch.Tensor, torch.Tensor]:
    angle = torch.rand(1, 1, tokens, pairs) * 6.28
    return angle.cos(), angle.sin()


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("heads", "tokens", "dim"), [(1, 1, 2), (3, 7, 6), (4, 33, 64)])
def test_values_equal_the_reference(dtype, heads, tokens, dim):
    x = torch.randn(2, heads, tokens, dim).to(dtype)
    cos, sin = angles(tokens, dim // 2)
    got, expected = rotate_pairs(x, cos, sin), rotate_pairs_reference(x.double(), cos.double(), sin.double())
    assert got.dtype == dtype
    assert (got.double() - expected).abs().max() <= TOLERANCE[dtype] * max(1.0, expected.abs().max().item())


def test_strided_input_gives_the_same_numbers():
    packed = torch.randn(2, 5, 3 * 4 * 8)
    x = packed.unflatten(-1, (12, 8)).transpose(1, 2)[:, 2:9]
    cos, sin = angles(5, 4)
    assert not x.is_contiguous()
    assert torch.equal(rotate_pairs(x, cos, sin), rotate_pairs(x.contiguous(), cos, sin))


def test_the_gradient_is_that_of_the_reference():
    cos, sin = angles(5, 4)
    weight = torch.randn(2, 3, 5, 8)
    grads = []
    for function in (rotate_pairs, rotate_pairs_reference):
        x = torch.linspace(-1, 1, 240).view(2, 3, 5, 8).requires_grad_()
        (function(x, cos, sin) * weight).sum().backward()
        grads.append(x.grad)
    assert torch.allclose(grads[0], grads[1], atol=1e-6)


def test_gradcheck_in_float64():
    angle = torch.rand(1, 1, 3, 2, dtype=torch.float64)
    x = torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: rotate_pairs(t, angle.cos(), angle.sin()), x)


def test_no_tokens_are_no_problem():
    assert rotate_pairs(torch.zeros(2, 3, 0, 8), torch.zeros(1, 1, 0, 4), torch.zeros(1, 1, 0, 4)).shape == (2, 3, 0, 8)


def test_angles_of_other_heads_are_refused():
    cos, sin = (torch.ones(1, 6, 5, 4) for _ in range(2))
    with pytest.raises(AptlabError, match=r"angles of 6 heads cannot rotate 1; rotate queries and keys together"):
        rotate_pairs(torch.randn(1, 1, 5, 8), cos, sin)
