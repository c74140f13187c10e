"""The residual as it is. Legend: B batch, T tokens, C dim."""

from __future__ import annotations

from torch import Tensor

from aptlab.nn.context import ForwardContext
from aptlab.nn.smooth.base import Smooth


class Plain(Smooth):
    """u' = u + delta (He et al. 2016, arXiv:1512.03385, eq. 1). Asked for a trace it gives peak = max |u'|."""

    def __init__(self, dim: int, *, layer: int, site: str) -> None:
        super().__init__()
        self.dim, self.layer, self.site = dim, layer, site

    def forward(self, u_BTC: Tensor, delta_BTC: Tensor, context: ForwardContext) -> Tensor:
        """The sum, in u's dtype."""
        out_BTC = (u_BTC + delta_BTC).to(u_BTC.dtype)
        if context.tracing:
            context.set_trace({"peak": out_BTC.detach().abs().amax().float()})
        return out_BTC
