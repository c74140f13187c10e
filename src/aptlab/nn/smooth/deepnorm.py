"""The residual of DeepNorm: a heavier stream before the norm. Legend: B batch, T tokens, C dim."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from aptlab.errors import ConfigError
from aptlab.limits import Positive
from aptlab.nn.context import ForwardContext
from aptlab.nn.layer import Layer
from aptlab.nn.smooth.base import SiteInfo, Smooth
from aptlab.nn.smooth.branch_scale import require_bound
from aptlab.nn.smooth.carry import measure_join


class DeepNorm(Smooth):
    """u' = norm(alpha · u + delta), with smaller weights at the start (Wang et al. 2022, arXiv:2203.00555, section 2).

    The norm is that of block=post_norm, which normalises the stream behind every join; no other norm may stand in the
    block, and ConfigError says so. The paper's is norm=layer.

    alpha  factor on the stream; None = N^(1/4) of N joins in the whole model: (2 L)^(1/4) in a decoder or an encoder
           of L blocks, (3 L)^(1/4) in a decoder with cross attention, as in the paper's table
    beta   factor on the start of the weights that carry values (v, out, the matrices of the feed-forward); None =
           (4 N)^(-1/4): (8 L)^(-1/4) and (12 L)^(-1/4). An encoder that has a decoder takes 0.81 (L_e^4 L_d)^(1/16) and
           0.87 (L_e^4 L_d)^(-1/16), which have to be given

    beta multiplies what the layer draws, N(0, std) (the paper: Xavier normal), and stands in the place of GPT-2's
    1 / sqrt(2 L) on output matrices. In the trace gate = 1 / alpha, the weight of a branch beside the stream.
    """

    plain = True

    def __init__(
        self, dim: int, *, layer: int, site: str, alpha: Positive | None = None, beta: Positive | None = None
    ) -> None:
        super().__init__()
        self.dim, self.layer, self.site = dim, layer, site
        self.alpha, self.beta = alpha, beta

    def bind_site(self, info: SiteInfo) -> None:
        """Learn the number of joins; ConfigError in a block that is not post-norm."""
        if info.parallel or info.norm or info.norm_after or not info.norm_joined:
            raise ConfigError(
                f"DeepNorm normalises the stream behind every join and nothing else, and the site {self.site} has "
                "norms in other places; use block=post_norm"
            )
        self.alpha = info.joins**0.25 if self.alpha is None else self.alpha
        self.beta = (4 * info.joins) ** -0.25 if self.beta is None else self.beta

    def forward(self, u_BTC: Tensor, delta_BTC: Tensor, context: ForwardContext) -> Tensor:
        """alpha · u + delta in u's dtype; the block normalises it."""
        alpha = require_bound(self.alpha, self)
        out_BTC = (alpha * u_BTC + delta_BTC).to(u_BTC.dtype)
        if context.tracing:
            context.set_trace(measure_join(u_BTC, delta_BTC, delta_BTC / alpha, out_BTC))
        return out_BTC

    @torch.no_grad()
    def start_branch(self, layer: Layer, depth: int) -> None:
        """Multiply the weights that carry values by beta."""
        writers = [matrix.weight for matrix in layer.output_matrices()]
        for weight in layer.value_weights():
            whole = math.sqrt(2 * depth) if any(weight is one for one in writers) else 1.0
            weight.mul_(whole * require_bound(self.beta, self))

    def extra_repr(self) -> str:
        """Place and factors, for printing."""
        return f"{self.dim}, layer={self.layer}, site={self.site}, alpha={self.alpha}, beta={self.beta}"
