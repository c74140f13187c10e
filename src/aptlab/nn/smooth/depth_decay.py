"""The residual with a fixed factor that falls with depth. Legend: B batch, T tokens, C dim."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from aptlab.errors import ConfigError, suggest_option
from aptlab.limits import Share
from aptlab.nn.smooth.base import SiteInfo
from aptlab.nn.smooth.branch_scale import BranchScale, require_bound

SCHEDULES = ("constant", "linear", "geometric")


class DepthDecay(BranchScale):
    """u' = u + lambda_l · delta with a fixed lambda for block l of L, l = 0 … L - 1 (one of the two things that the APT
    documents call DBC-DAC: depth-balanced decay).

        constant   lambda_l = last
        linear     lambda_l = 1 - (1 - last) · l / (L - 1)
        geometric  lambda_l = last^(l / (L - 1))

    last  lambda of the last block; None = 1 / sqrt(N) of N joins in the whole model, 1 / sqrt(2 L) in a decoder

    A model of one block has lambda = 1 in linear and geometric. Matrices start as always, unlike in `ResidualScale`.
    """

    plain = True

    def __init__(
        self,
        dim: int,
        *,
        layer: int,
        site: str,
        schedule: Literal["constant", "linear", "geometric"] = "linear",
        last: Share | None = None,
    ) -> None:
        super().__init__(dim, layer=layer, site=site)
        if schedule not in SCHEDULES:
            raise ConfigError(f"schedule={schedule} is not known{suggest_option(str(schedule), SCHEDULES)}")
        self.schedule, self.last = schedule, last
        self.factor: float | None = None

    def bind_site(self, info: SiteInfo) -> None:
        """Learn the depth, and with it the factor."""
        last = info.joins**-0.5 if self.last is None else self.last
        way = self.layer / max(info.depth - 1, 1)
        factors = {"constant": last, "linear": 1 - (1 - last) * way, "geometric": last**way}
        self.factor = factors[self.schedule]

    def scale_step(self, delta_BTC: Tensor) -> Tensor:
        """delta times the factor of its block."""
        return require_bound(self.factor, self) * delta_BTC

    def extra_repr(self) -> str:
        """Schedule and factor, for printing."""
        return f"layer={self.layer}, schedule={self.schedule}, factor={self.factor}"
