"""Rotation of pairs by given cosines and sines. Legend: B batch, H heads, T tokens, D head dim, P = D/2 pairs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def rotate_reference(x_BHTD: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """(a, b) -> (a cos - b sin, b cos + a sin) for the two halves a, b of the last dimension.

    cos and sin are float32 and broadcast to [B, H, T, P]; the result is rounded once to the input's dtype.
    """
    a, b = x_BHTD.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1).to(x_BHTD.dtype)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor, sign: float) -> Tensor:
    a, b = x.chunk(2, dim=-1)
    out = torch.empty_like(x, dtype=torch.promote_types(x.dtype, cos.dtype))
    left, right = out.chunk(2, dim=-1)
    torch.mul(a, cos, out=left).addcmul_(b, sin, value=-sign)
    torch.mul(b, cos, out=right).addcmul_(a, sin, value=sign)
    return out.to(x.dtype)


class _Rotate(torch.autograd.Function):
    """The reference in four passes instead of seven; its gradient is the rotation back, so no activation is kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _rotate(x, cos, sin, 1.0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _rotate(grads[0], cos, sin, -1.0), None, None


def rotate(x_BHTD: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate pairs (i, i + D/2); the same numbers as `rotate_reference`.

    No gradient reaches cos and sin. A compiler fuses the reference better than it traces the hand-written passes.
    """
    if torch.compiler.is_compiling() or cos.requires_grad or sin.requires_grad:
        return rotate_reference(x_BHTD, cos, sin)
    return _Rotate.apply(x_BHTD, cos, sin)
