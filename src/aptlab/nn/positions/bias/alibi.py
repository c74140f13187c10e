"""A straight penalty on distance. Legend: H heads."""

from __future__ import annotations

import torch
from torch import Tensor

from aptlab.nn.positions.bias.base import Formula, ScoreBias


class ALiBi(ScoreBias):
    """f(h, d) = -slope_h · d (Press et al. 2021, arXiv:2108.12409, section 3); nothing is learned.

    Slopes are 2^(-8h/H) for h = 1 .. H where H is a power of two. Other H take the slopes of the largest power of two
    P below, and then every second one of 2P heads, as in the authors' released code.
    """

    slopes: Tensor

    def __init__(self, *, heads: int, head_dim: int, layer: int) -> None:
        del head_dim, layer
        super().__init__(heads=heads)

    def constants(self) -> dict[str, Tensor]:
        """The slopes, float32 [H]."""
        return {"slopes": torch.tensor(compute_alibi_slopes(self.heads), dtype=torch.float64, device="cpu").float()}

    def formula(self) -> Formula:
        """-slope_h · d."""
        slopes_H = self.slopes
        return lambda head, distance: -slopes_H[head] * distance

    def extra_repr(self) -> str:
        """Options, for printing."""
        return f"heads={self.heads}"


def compute_alibi_slopes(heads: int) -> tuple[float, ...]:
    """The published slope of every head.

    >>> slopes(4)
    (0.25, 0.0625, 0.015625, 0.00390625)
    >>> slopes(3)
    (0.0625, 0.00390625, 0.25)
    """
    power = 1 << (heads.bit_length() - 1)
    first = [2.0 ** (-8 * h / power) for h in range(1, power + 1)]
    second = [2.0 ** (-4 * h / power) for h in range(1, 2 * power + 1, 2)]
    return tuple(first + second[: heads - power])
