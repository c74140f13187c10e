"""Rotation of queries and keys by exact angles at any position.

Legend: B batch, H heads, T tokens, D head dim, P = D/2 pairs.
A position is split as hi·4096 + lo. Cosines and sines of hi·4096·theta and of lo·theta are built once in
float64, stored in float32 and joined by one complex product, so that the error does not grow with position
(a float32 product position·theta is off by half a radian at ten million tokens).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from aptlab.nn.rope import Rope
from aptlab.ops.rotary import rotate

STEP = 4096
LONGEST = STEP * STEP  # positions the two tables cover: 16.7 million


class Angles(NamedTuple):
    """Cosine and sine of each pair's angle, float32 [B or 1, 1, T, P]."""

    cos: Tensor
    sin: Tensor


class RotaryEmbedding(nn.Module):
    """Turns pair i of a head by position · theta_i, with pairs (i, i + D/2) as in Llama checkpoints.

    Su et al. 2021 (arXiv:2104.09864, eq. 34) pair neighbours (2i, 2i + 1); the half-split layout is the
    same rotation after a permutation of the projection's rows.
    """

    hi_cos: Tensor
    hi_sin: Tensor
    lo_cos: Tensor
    lo_sin: Tensor

    def __init__(self, rule: Rope, *, head_dim: int) -> None:
        super().__init__()
        self.rule = rule
        self.head_dim = head_dim
        for name, table in self._tables().items():
            self.register_buffer(name, table, persistent=False)

    def _tables(self) -> dict[str, Tensor]:
        theta_P = torch.tensor(self.rule.inv_freq(self.head_dim), dtype=torch.float64, device="cpu")
        steps_N1 = torch.arange(STEP, dtype=torch.float64, device="cpu").unsqueeze(1)
        tables = {}
        for name, angle_NP in (("hi", steps_N1 * STEP * theta_P), ("lo", steps_N1 * theta_P)):
            tables[f"{name}_cos"] = angle_NP.cos().float()
            tables[f"{name}_sin"] = angle_NP.sin().float()
        return tables

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> RotaryEmbedding:
        """Follow the device, never the dtype: bfloat16 tables ruin positions beyond 256."""
        device = fn(torch.empty(0, device=self.lo_cos.device)).device
        for name, table in self._tables().items():
            setattr(self, name, table.to(device))
        return self

    def angles(self, positions_BT: Tensor) -> Angles:
        """Angles of integer positions in [0, 16.7 million), int64 [B, T] or [1, T]."""
        hi, lo = positions_BT.div(STEP, rounding_mode="floor"), positions_BT % STEP
        hi_cos, hi_sin = self.hi_cos[hi], self.hi_sin[hi]
        lo_cos, lo_sin = self.lo_cos[lo], self.lo_sin[lo]
        cos_BTP = hi_cos * lo_cos - hi_sin * lo_sin
        sin_BTP = hi_sin * lo_cos + hi_cos * lo_sin
        return Angles(cos_BTP.unsqueeze(1), sin_BTP.unsqueeze(1))

    def rotate(self, x_BHTD: Tensor, angles: Angles) -> Tensor:
        """Rotate in float32 and round once to the input's dtype."""
        return rotate(x_BHTD, angles.cos, angles.sin)

    def extra_repr(self) -> str:
        return f"{self.rule}, head_dim={self.head_dim}"
