"""Gemma 2's and 3's weights in our terms: what its code multiplies at run time stands in our weights.

    embedding       E' = E · sqrt(C)                       Gemma scales the stream, not the head that shares E
    last norm       w' = (1 + w) / sqrt(C) with a shared head, else 1 + w
    other norms     w' = 1 + w
    query norm      w' = (1 + w) · sqrt(D / query_pre_attn_scalar), in Gemma 3; Gemma 2 has none, and a scale on logits

C is the model's width, D the head dim. Products and sums are made in float64 and rounded once. Where sqrt(C) is a power
of two and norms lie in [0.5, 2], the way there and back is exact in float32; else a weight may move by one ulp.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from aptlab.nn.shape import Shape

NORMS = ("norm.weight", "norm_after.weight", "k_norm.weight")


def fold_gemma_scales(weights: Mapping[str, Tensor], shape: Shape, *, tied: bool, scalar: float) -> dict[str, Tensor]:
    """Weights with Gemma's values under our names -> ours. scalar  query_pre_attn_scalar"""
    scale, query = _scales(shape, scalar)
    out = dict(weights)
    for name, weight in weights.items():
        wide = weight.double()
        if name == "embed.weight" or (name == "head.weight" and tied):
            out[name] = (wide * scale).float()
        elif name.endswith("q_norm.weight"):
            out[name] = ((1 + wide) * query).float()
        elif name.endswith(NORMS):
            out[name] = ((1 + wide) / (scale if name == "norm.weight" and tied else 1.0)).float()
    return out


def unfold_gemma_scales(weights: Mapping[str, Tensor], shape: Shape, *, tied: bool) -> dict[str, Tensor]:
    """The inverse of `fold_gemma_scales`, with query_pre_attn_scalar = head_dim."""
    scale, _ = _scales(shape, 1.0)
    out = dict(weights)
    for name, weight in weights.items():
        wide = weight.double()
        if name == "embed.weight" or (name == "head.weight" and tied):
            out[name] = (wide / scale).to(torch.promote_types(weight.dtype, torch.float32))
        elif name.endswith((*NORMS, "q_norm.weight")):
            out[name] = (wide * (scale if name == "norm.weight" and tied else 1.0) - 1).float()
    return out


def _scales(shape: Shape, scalar: float) -> tuple[float, float]:
    """sqrt(C) as Gemma's float32 code has it, and the factor on queries."""
    return float(torch.tensor(shape.dim**0.5)), math.sqrt(shape.head_sizes()[2] / scalar)
