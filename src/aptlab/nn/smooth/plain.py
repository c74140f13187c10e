"""The residual as it is. Legend: B batch, T tokens, C dim."""

from __future__ import annotations

from torch import Tensor, nn

from aptlab.nn.smooth.carry import Carry, Trace


class Plain(nn.Module):
    """u' = u + delta (He et al. 2016, arXiv:1512.03385, eq. 1). Asked for a trace it gives peak = max |u'|."""

    def __init__(self, dim: int, *, layer: int, site: str) -> None:
        super().__init__()
        self.dim, self.layer, self.site = dim, layer, site

    def forward(
        self, u_BTC: Tensor, delta_BTC: Tensor, carry: Carry | None = None, *, trace: bool = False
    ) -> tuple[Tensor, Carry | None, Trace | None]:
        del carry
        out_BTC = (u_BTC + delta_BTC).to(u_BTC.dtype)
        seen: Trace | None = {"peak": out_BTC.detach().abs().amax().float()} if trace else None
        return out_BTC, None, seen
