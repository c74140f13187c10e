"""Rotation of queries and keys, in the kernel where it fits and by shared angles elsewhere.

Legend: B batch, H query heads, K key/value heads, N = H + K, T tokens, D head dim.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aptlab.nn.attention.base import HeadAttention
from aptlab.nn.attention.qk_norm import QKNorm
from aptlab.nn.context import ForwardContext
from aptlab.nn.positions.layer import Growth
from aptlab.nn.positions.rotary import Rotary
from aptlab.ops.rotary_heads import HeadNorm, RotationArgs, can_use_kernel, rotate_heads, rotate_heads_


def rotate_queries_keys(layer: HeadAttention, qk_BNTD: Tensor, context: ForwardContext) -> tuple[Tensor, Tensor]:
    """Queries [B, H, T, D] and keys [B, K, T, D] normalised, rotated, and queries scaled, as the layer's positions say.

    On a device with the kernel one pass does it where every head rotates by one set of frequencies; elsewhere the
    angles are made once per forward pass and shared by all layers with the same rule.
    """
    positions, rotary = layer.layer_positions, layer.layer_positions.rotary
    late = layer.qk_norm is not None and layer.qk_norm.where == "after"
    if rotary is not None and rotary.simple and can_use_kernel(qk_BNTD) and (fits_kernel(layer) or not late):
        if not fits_kernel(layer):
            qk_BNTD = layer.normalize_qk(qk_BNTD)
        # Written over where nobody needs the heads as they were: no gradient, no compiler, no hook that kept them.
        spare = not (torch.is_grad_enabled() or torch.compiler.is_compiling() or layer.qkv._forward_hooks)
        qk_BNTD = (rotate_heads_ if spare else rotate_heads)(qk_BNTD, make_rotation_args(layer, rotary, context))
        return scale_queries(layer, qk_BNTD, None, context)
    qk_BNTD, scale = qk_BNTD if late else layer.normalize_qk(qk_BNTD), None
    if rotary is not None:
        angles = context.angles(rotary)
        qk_BNTD, scale = rotary.rotate(qk_BNTD, angles), angles.scale
    if positions.norm_after:
        qk_BNTD = normalize_rms(qk_BNTD, positions.norm_eps)
    if late:
        qk_BNTD = layer.normalize_qk(qk_BNTD)
    return scale_queries(layer, qk_BNTD, scale, context)


def fits_kernel(layer: HeadAttention) -> bool:
    """Whether the kernel itself norms: each head by its root mean square, and no second norm after the rotation."""
    return layer.qk_norm in (None, QKNorm(), QKNorm(where="after")) and not layer.layer_positions.norm_after


def make_rotation_args(layer: HeadAttention, rotary: Rotary, context: ForwardContext) -> RotationArgs:
    """What the kernel does in one pass: rotation, and the norm before or after it."""
    norm = None
    if layer.layer_positions.norm_after:
        norm = HeadNorm(None, layer.layer_positions.norm_eps, "after")
    elif layer.qk_norm and fits_kernel(layer):
        weights = torch.stack((layer.q_norm.weight, layer.k_norm.weight))  # type: ignore[arg-type]
        norm = HeadNorm(weights, layer.q_norm.eps, layer.qk_norm.where)  # type: ignore[arg-type]
    return rotary.kernel_args(context.positions_BT, layer.heads, norm)


def scale_queries(
    layer: HeadAttention, qk_BNTD: Tensor, scale: Tensor | None, context: ForwardContext
) -> tuple[Tensor, Tensor]:
    """Queries and keys apart, queries times what depends on their token."""
    q, k = qk_BNTD.split([layer.heads, layer.kv_heads], dim=1)
    if scale is not None:
        q = (q * scale).to(q.dtype)
    growth = layer.layer_positions.growth
    if growth is not None:
        q = (q * compute_query_growth(context.positions_BT, growth)).to(q.dtype)
    return q, k


def normalize_rms(x: Tensor, eps: float) -> Tensor:
    """x over its root mean square, computed in float32 (Llama 4's query and key norm; it has no weights)."""
    wide = x.float()
    return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)).to(x.dtype)


def compute_query_growth(positions_BT: Tensor, growth: Growth) -> Tensor:
    """1 + scale · ln(1 + floor((position + offset) / floor)), float32 [B, 1, T, 1]."""
    steps = (positions_BT + growth.offset).div(growth.floor, rounding_mode="floor")
    return (1 + growth.scale * torch.log1p(steps.float()))[:, None, :, None]
