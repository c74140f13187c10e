"""Sizes of vectors, in float32 at least, for kernels and their references. Legend: B batch, T tokens, C dim."""

from __future__ import annotations

import torch
from torch import Tensor

TINY = 1e-12  # inside every root
GUARD = 1e-6  # beside sums of sizes


def upcast_to_float32(x: Tensor) -> Tensor:
    """float32 for anything narrower; float64 stays."""
    return x if x.dtype == torch.float64 else x.float()


def compute_rms(x_BTC: Tensor) -> Tensor:
    """sqrt(mean(x²) + 1e-12) over the last axis, which is kept as 1."""
    return (torch.linalg.vector_norm(x_BTC, dim=-1, keepdim=True).square() / x_BTC.shape[-1] + TINY).sqrt()
