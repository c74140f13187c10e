"""The residual with a learned number for every channel of a branch. Legend: B batch, T tokens, C dim."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from aptlab.limits import Positive
from aptlab.nn.smooth.branch_scale import BranchScale
from aptlab.ops.measure import upcast_to_float32

STARTS = ((18, 0.1), (24, 1e-5))  # up to this many blocks, this start
DEEP_START = 1e-6


class LayerScale(BranchScale):
    """u' = u + weight · delta with a learned vector [C] per site (Touvron et al. 2021, CaiT, arXiv:2103.17239).

    start  every channel's first value; None = by the number of blocks as in CaiT: 0.1 up to 18, 1e-5 up to 24, 1e-6
           beyond

    The weights take no weight decay and multiply in float32.
    """

    def __init__(self, dim: int, *, layer: int, site: str, start: Positive | None = None) -> None:
        super().__init__(dim, layer=layer, site=site)
        self.start = start
        self.weight = nn.Parameter(torch.full((dim,), self.find_start(1)))

    def scale_step(self, delta_BTC: Tensor) -> Tensor:
        """delta times the site's vector."""
        return upcast_to_float32(self.weight) * delta_BTC

    def find_start(self, depth: int) -> float:
        """The first value in a model of so many blocks."""
        if self.start is not None:
            return float(self.start)
        return next((start for most, start in STARTS if depth <= most), DEEP_START)

    def reset_parameters(self, std: float, depth: int) -> None:
        """Every channel at the start that this depth has."""
        nn.init.constant_(self.weight, self.find_start(depth))

    def extra_repr(self) -> str:
        """Place and start, for printing."""
        start = "by depth" if self.start is None else f"{self.start:g}"
        return f"{self.dim}, layer={self.layer}, site={self.site}, start={start}"
