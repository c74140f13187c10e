"""The residual with one learned number on every branch. Legend: B batch, T tokens, C dim."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from aptlab.limits import NonNegative
from aptlab.nn.smooth.branch_scale import BranchScale
from aptlab.ops.measure import upcast_to_float32


class ReZero(BranchScale):
    """u' = u + weight · delta with a learned scalar per site that starts at 0 (Bachlechner et al. 2020,
    arXiv:2003.04887), so that the whole network starts as the identity.

    The ReZero Transformer has no norms; here the block keeps those that it has. The weight is
    [1], takes no weight decay, and multiplies in float32. `start` other than 0 is no ReZero.
    """

    def __init__(self, dim: int, *, layer: int, site: str, start: NonNegative = 0.0) -> None:
        super().__init__(dim, layer=layer, site=site)
        self.start = start
        self.weight = nn.Parameter(torch.full((1,), float(start)))

    def scale_step(self, delta_BTC: Tensor) -> Tensor:
        """delta times the site's number."""
        return upcast_to_float32(self.weight) * delta_BTC

    def reset_parameters(self, std: float, depth: int) -> None:
        """Back to `start`."""
        nn.init.constant_(self.weight, self.start)

    def extra_repr(self) -> str:
        """Place and start, for printing."""
        return f"{self.dim}, layer={self.layer}, site={self.site}, start={self.start:g}"
