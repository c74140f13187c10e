"""Learned penalties on distance that are conditionally positive definite kernels. Legend: H heads."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aptlab.errors import ConfigError, suggest_option
from aptlab.nn.positions.bias.base import Formula, ScoreBias
from aptlab.ops.measure import upcast_to_float32

KERNELS = ("log", "power")


class Kerple(ScoreBias):
    """Penalty on distance with two learned positive numbers per head (KERPLE, Chi et al. 2022, arXiv:2205.09921).

        log    f(h, d) = -r1 · ln(1 + r2 · d)     r1, r2 > 0
        power  f(h, d) = -r1 · d^r2               r1 > 0, 0 < r2 < 2

    All layers share them, as in the released code, whose starting values are taken too: larger and smaller uniform in
    (0, 2) and (0, 1). There limits are kept by clamping the weights in the forward pass; here the weights are free and
    r = softplus(weight), or 2 · sigmoid(weight) for the power's r2.
    """

    def __init__(self, *, heads: int, head_dim: int, layer: int, kernel: Literal["log", "power"] = "log") -> None:
        del head_dim, layer
        if kernel not in KERNELS:
            raise ConfigError(f"kernel={kernel!r}{suggest_option(kernel, KERNELS)}")
        super().__init__(heads=heads)
        self.kernel = kernel
        log = kernel == "log"
        size, slope = torch.rand(heads) * (2 if log else 1), torch.rand(heads) * (1 if log else 2)
        self.size = nn.Parameter(invert_softplus(size.clamp_min(0.01)))
        self.slope = nn.Parameter(
            invert_softplus(slope.clamp_min(0.01)) if log else (slope / 2).clamp(0.005, 0.995).logit()
        )

    def rates(self) -> tuple[Tensor, Tensor]:
        """r1 and r2, [H] each."""
        size, slope = upcast_to_float32(self.size), upcast_to_float32(self.slope)
        return F.softplus(size), F.softplus(slope) if self.kernel == "log" else 2 * slope.sigmoid()

    def formula(self) -> Formula:
        """The kernel; d^r2 is taken from d = 1 on, where its gradient is finite."""
        r1_H, r2_H = self.rates()
        if self.kernel == "log":
            return lambda head, distance: -r1_H[head] * torch.log1p(r2_H[head] * distance)

        def power(head: Tensor, distance: Tensor) -> Tensor:
            value = -r1_H[head] * distance.clamp_min(1).to(r1_H.dtype) ** r2_H[head]
            return torch.where(distance > 0, value, 0.0)

        return power

    def extra_repr(self) -> str:
        """Options, for printing."""
        return f"heads={self.heads}, kernel={self.kernel}"


def invert_softplus(r: Tensor) -> Tensor:
    """The weight whose softplus is r."""
    return r + torch.log(-torch.expm1(-r))
