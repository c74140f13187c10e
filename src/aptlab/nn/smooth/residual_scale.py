"""The residual with one fixed factor on every branch. Legend: B batch, T tokens, C dim."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from aptlab.limits import Positive
from aptlab.nn.layer import Layer
from aptlab.nn.smooth.base import SiteInfo
from aptlab.nn.smooth.branch_scale import BranchScale, require_bound


class ResidualScale(BranchScale):
    """u' = u + factor · delta, a factor that is not learned.

    factor  None = 1 / sqrt(N) of N joins in the whole model, 1 / sqrt(2 L) in a decoder of L blocks. GPT-2 (Radford et
            al. 2019, section 2.3) divides the start of the output matrices by that, which aptlab does with every other
            rule; here the factor stands in the forward pass instead (Yang et al. 2023, arXiv:2310.02244) and the
            matrices start undivided. So the network starts as it does with smooth=none, and learns otherwise: the step
            of an Adam does not shrink with the factor.
            A number is taken as it is, and matrices start as always: Granite has 0.22 (`residual_multiplier`).
    """

    plain = True

    def __init__(self, dim: int, *, layer: int, site: str, factor: Positive | None = None) -> None:
        super().__init__(dim, layer=layer, site=site)
        self.given = self.found = factor

    def bind_site(self, info: SiteInfo) -> None:
        """Learn the number of joins."""
        if self.given is None:
            self.found = info.joins**-0.5

    @property
    def factor(self) -> float:
        """The factor; AptlabError where it goes by a depth that nobody has told."""
        return require_bound(self.found, self)

    def scale_step(self, delta_BTC: Tensor) -> Tensor:
        """delta times the factor."""
        return self.factor * delta_BTC

    @torch.no_grad()
    def start_branch(self, layer: Layer, depth: int) -> None:
        """Take back the 1 / sqrt(2 L) of the output matrices where the factor stands for it."""
        if self.given is None:
            for matrix in layer.output_matrices():
                matrix.weight.mul_(math.sqrt(2 * depth))

    def extra_repr(self) -> str:
        """The factor, for printing."""
        return f"factor={self.found}"
