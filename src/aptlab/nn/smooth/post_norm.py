"""The residual with a normalised branch. Legend: B batch, T tokens, C dim."""

from __future__ import annotations

from torch import Tensor

from aptlab.limits import Positive
from aptlab.nn.context import ForwardContext
from aptlab.nn.norm import RMSNorm
from aptlab.nn.smooth.base import Smooth


class PostNorm(Smooth):
    """u' = u + delta / rms(delta) · weight: every branch adds a step of learned size (Gemma 2, arXiv:2408.00118).

    With the block's own pre-norm this is the "sandwich" of Ding et al. 2021 (CogView, arXiv:2105.13290, section 2.4),
    there with LayerNorm; block=sandwich computes the same and leaves the join free. One weight [C] per site, ones at
    first. Asked for a trace it gives peak = max |u'|.
    """

    def __init__(self, dim: int, *, layer: int, site: str, eps: Positive = 1e-5) -> None:
        super().__init__()
        self.dim, self.layer, self.site = dim, layer, site
        self.norm = RMSNorm(dim, eps=eps)

    def forward(self, u_BTC: Tensor, delta_BTC: Tensor, context: ForwardContext) -> Tensor:
        """The sum with the normalised branch, in u's dtype."""
        out_BTC = (u_BTC + self.norm(delta_BTC)).to(u_BTC.dtype)
        if context.tracing:
            context.set_trace({"peak": out_BTC.detach().abs().amax().float()})
        return out_BTC
