"""Rotation of pairs by given cosines and sines. Legend: B batch, H heads, T tokens, D head dim, P <= D/2 pairs.

A layout says which dims form pair i of P: "half" (i, i + P), "interleaved" (2i, 2i + 1). Dims beyond 2P stay.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from aptlab.errors import AptlabError


def rotate_pairs_reference(x_BHTD: Tensor, cos: Tensor, sin: Tensor, *, layout: str = "half") -> Tensor:
    """(a, b) -> (a cos - b sin, b cos + a sin) for every pair (a, b).

    cos and sin are float32 and broadcast to [B, H, T, P]; the result is rounded once to the input's dtype.
    """
    rotary, rest = x_BHTD.tensor_split([2 * cos.shape[-1]], dim=-1)
    a, b = split_pairs(rotary, layout)
    rotated = join_pairs(a * cos - b * sin, b * cos + a * sin, layout).to(x_BHTD.dtype)
    return rotated if rest.shape[-1] == 0 else torch.cat((rotated, rest), dim=-1)


def split_pairs(x: Tensor, layout: str) -> tuple[Tensor, Tensor]:
    """Views of the first and the second member of every pair."""
    first, second = x.chunk(2, dim=-1) if layout == "half" else x.unflatten(-1, (-1, 2)).unbind(-1)
    return first, second


def join_pairs(first: Tensor, second: Tensor, layout: str) -> Tensor:
    """The inverse of `pairs`."""
    return torch.cat((first, second), dim=-1) if layout == "half" else torch.stack((first, second), dim=-1).flatten(-2)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor, sign: float, layout: str) -> Tensor:
    size = 2 * cos.shape[-1]
    out = torch.empty_like(x, dtype=torch.promote_types(x.dtype, cos.dtype))
    a, b = split_pairs(x[..., :size], layout)
    left, right = split_pairs(out[..., :size], layout)
    torch.mul(a, cos, out=left).addcmul_(b, sin, value=-sign)
    torch.mul(b, cos, out=right).addcmul_(a, sin, value=sign)
    out[..., size:] = x[..., size:]
    return out.to(x.dtype)


class _Rotate(torch.autograd.Function):
    """The reference in four passes instead of seven; its gradient is the rotation back, so no activation is kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor, layout: str) -> Tensor:
        ctx.save_for_backward(cos, sin)
        ctx.layout = layout
        return _rotate(x, cos, sin, 1.0, layout)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        cos, sin = ctx.saved_tensors
        return _rotate(grads[0], cos, sin, -1.0, ctx.layout), None, None, None


def rotate_pairs(x_BHTD: Tensor, cos: Tensor, sin: Tensor, *, layout: str = "half") -> Tensor:
    """Rotate pairs; the same numbers as `rotate_reference`.

    Gradients reach cos and sin where these ask for them. A compiler fuses the reference better than it traces the
    hand-written passes.
    """
    if cos.ndim == x_BHTD.ndim and cos.shape[1] not in (1, x_BHTD.shape[1]):
        angle_heads, heads = cos.shape[1], x_BHTD.shape[1]
        raise AptlabError(f"angles of {angle_heads} heads cannot rotate {heads}; rotate queries and keys together")
    if torch.compiler.is_compiling() or cos.requires_grad or sin.requires_grad:
        return rotate_pairs_reference(x_BHTD, cos, sin, layout=layout)
    return _Rotate.apply(x_BHTD, cos, sin, layout)
