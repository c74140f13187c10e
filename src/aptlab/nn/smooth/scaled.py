"""The residual with a fixed factor on every branch. Legend: B batch, T tokens, C dim."""

from __future__ import annotations

from torch import Tensor

from aptlab.limits import Positive
from aptlab.nn.context import ForwardContext
from aptlab.nn.smooth.base import Smooth


class ScaledResidual(Smooth):
    """u' = u + factor · delta, a factor that is not learned.

    Yang et al. 2023 (arXiv:2310.02244) have a / sqrt(depth), Granite a number that it calls `residual_multiplier`. The
    output matrices of a trained model may hold the factor as well; in training it is another model, as the step of an
    Adam does not shrink with it. Asked for a trace it gives peak = max |u'|.
    """

    def __init__(self, dim: int, *, layer: int, site: str, factor: Positive = 0.22) -> None:
        super().__init__()
        self.dim, self.layer, self.site, self.factor = dim, layer, site, factor

    def forward(self, u_BTC: Tensor, delta_BTC: Tensor, context: ForwardContext) -> Tensor:
        """The sum with the scaled branch, in u's dtype."""
        out_BTC = (u_BTC + self.factor * delta_BTC).to(u_BTC.dtype)
        if context.tracing:
            context.set_trace({"peak": out_BTC.detach().abs().amax().float()})
        return out_BTC

    def extra_repr(self) -> str:
        """The factor, for printing."""
        return f"factor={self.factor}"
