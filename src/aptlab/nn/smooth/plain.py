"""The residual as it is. Legend: B batch, T tokens, C dim."""

from __future__ import annotations

from torch import Tensor, nn

from aptlab.nn.context import ForwardContext
from aptlab.nn.smooth.base import Smooth
from aptlab.nn.smooth.fused import add_norm, can_fuse_norm
from aptlab.ops.smooth_norm import JoinArgs, can_use_kernel, join_norm


class Plain(Smooth):
    """u' = u + delta (He et al. 2016, arXiv:1512.03385, eq. 1). Asked for a trace it gives peak = max |u'|."""

    def __init__(self, dim: int, *, layer: int, site: str) -> None:
        super().__init__()
        self.dim, self.layer, self.site = dim, layer, site

    def forward(self, u_BTC: Tensor, delta_BTC: Tensor, context: ForwardContext) -> Tensor:
        """The sum, in u's dtype."""
        return trace_peak((u_BTC + delta_BTC).to(u_BTC.dtype), context)

    def join_norm(
        self, u_BTC: Tensor, delta_BTC: Tensor, context: ForwardContext, norm: nn.Module
    ) -> tuple[Tensor, Tensor]:
        """The sum and its norm, in one pass where there is a kernel."""
        if not (can_use_kernel(u_BTC, delta_BTC) and can_fuse_norm(self, norm)):
            return super().join_norm(u_BTC, delta_BTC, context, norm)
        joined = join_norm(u_BTC, delta_BTC, add_norm(JoinArgs(), norm))
        assert joined.normed is not None
        return trace_peak(joined.stream, context), joined.normed


def trace_peak(out_BTC: Tensor, context: ForwardContext) -> Tensor:
    """The stream as it is, with max |u'| in the trace where that is asked for."""
    if context.tracing:
        context.set_trace({"peak": out_BTC.detach().abs().amax().float()})
    return out_BTC
