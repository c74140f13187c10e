"""The residual as it is. Legend: B batch, T tokens, C dim."""

from __future__ import annotations

from torch import Tensor, nn

from aptlab.nn.context import ForwardContext
from aptlab.nn.smooth.base import Smooth
from aptlab.nn.smooth.carry import measure_join
from aptlab.nn.smooth.fused import add_norm, can_fuse_norm
from aptlab.ops.smooth_norm import JoinArgs, can_use_kernel, join_norm


class Plain(Smooth):
    """u' = u + delta (He et al. 2016, arXiv:1512.03385, eq. 1)."""

    plain = True

    def __init__(self, dim: int, *, layer: int, site: str) -> None:
        super().__init__()
        self.dim, self.layer, self.site = dim, layer, site

    def forward(self, u_BTC: Tensor, delta_BTC: Tensor, context: ForwardContext) -> Tensor:
        """The sum, in u's dtype."""
        out_BTC = (u_BTC + delta_BTC).to(u_BTC.dtype)
        trace_sum(u_BTC, delta_BTC, out_BTC, context)
        return out_BTC

    def join_norm(
        self, u_BTC: Tensor, delta_BTC: Tensor, context: ForwardContext, norm: nn.Module
    ) -> tuple[Tensor, Tensor]:
        """The sum and its norm, in one pass where there is a kernel."""
        if not (can_use_kernel(u_BTC, delta_BTC) and can_fuse_norm(self, norm)):
            return super().join_norm(u_BTC, delta_BTC, context, norm)
        joined = join_norm(u_BTC, delta_BTC, add_norm(JoinArgs(), norm))
        assert joined.normed is not None
        trace_sum(u_BTC, delta_BTC, joined.stream, context)
        return joined.stream, joined.normed


def trace_sum(u_BTC: Tensor, delta_BTC: Tensor, out_BTC: Tensor, context: ForwardContext) -> None:
    """Statistics of u + delta, where they are asked for."""
    if context.tracing:
        context.set_trace(measure_join(u_BTC, delta_BTC, delta_BTC, out_BTC))
