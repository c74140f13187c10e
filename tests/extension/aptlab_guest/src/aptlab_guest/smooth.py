"""A residual that shrinks its branch by a number. Legend: B batch, T tokens, C dim."""

from __future__ import annotations

from torch import Tensor

from aptlab.limits import Positive
from aptlab.nn.context import ForwardContext
from aptlab.nn.smooth import Smooth


class Shrunk(Smooth):
    """u' = u + share · delta."""

    def __init__(self, dim: int, *, layer: int, site: str, share: Positive = 0.5) -> None:
        super().__init__()
        self.share = share

    def forward(self, u_BTC: Tensor, delta_BTC: Tensor, context: ForwardContext) -> Tensor:
        """The sum, in u's dtype."""
        out_BTC = (u_BTC + self.share * delta_BTC).to(u_BTC.dtype)
        if context.tracing:
            context.set_trace({"peak": out_BTC.detach().abs().amax().float()})
        return out_BTC
