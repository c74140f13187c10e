"""Clipping of each unit's gradient by the size of its weights. Legend: U units, I inputs."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import cast

import torch
from torch import Tensor

from aptlab.callbacks.gradients.base import GradientCallback, Weights, check_limits
from aptlab.limits import Positive, PositiveInt


class AGC(GradientCallback):
    """Adaptive gradient clipping (Brock et al. 2021, arXiv:2102.06171, eq. 3): a unit's gradient against its weights.

        G_u <- G_u · min(ratio · max(|W_u|, eps) / |G_u|, 1)

    W_u are the weights of unit u: a row of a matrix [U, I] (in an embedding: a token), all of a vector. |·| is the
    Frobenius norm. The source leaves the last linear layer alone: `skip` holds patterns of names that stay. It keeps
    no state. Logs `clipped`, the share of units whose gradient was made smaller. Norms in float32.
    """

    name = "agc"

    def __init__(
        self,
        *,
        ratio: Positive = 0.01,
        eps: Positive = 1e-3,
        skip: Sequence[str] = ("*head.*",),
        every: PositiveInt = 10,
    ) -> None:
        super().__init__(every=every)
        check_limits(("ratio", ratio, Positive), ("eps", eps, Positive))
        self.ratio, self.eps, self.skip = ratio, eps, tuple(skip)

    def change(self, weights: Weights, finite: Tensor, norm: Tensor) -> dict[str, Tensor]:
        """Scale every unit by its own factor."""
        made_smaller, units = torch.zeros_like(norm), 0
        for name, weight in weights.items():
            if any(fnmatchcase(name, pattern) for pattern in self.skip):
                continue
            gradient = cast(Tensor, weight.grad)
            size, steep = measure_units(weight.detach()), measure_units(gradient)
            largest = self.ratio * size.clamp(min=self.eps)
            factor = torch.where(steep > largest, largest / steep, 1.0)
            gradient.mul_(factor)
            made_smaller += (factor < 1).sum()
            units += factor.numel()
        return {"clipped": made_smaller / max(units, 1)}


def measure_units(weight: Tensor) -> Tensor:
    """The norm of each unit of a weight, in a shape that multiplies it: [U, 1, ...], or a scalar of a vector."""
    wide = torch.promote_types(weight.dtype, torch.float32)
    if weight.ndim <= 1:
        return torch.linalg.vector_norm(weight, dtype=wide)
    return torch.linalg.vector_norm(weight, dim=tuple(range(1, weight.ndim)), keepdim=True, dtype=wide)
