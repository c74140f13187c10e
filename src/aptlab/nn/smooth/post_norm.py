"""The residual with a normalised branch. Legend: B batch, T tokens, C dim."""

from __future__ import annotations

from torch import Tensor

from aptlab.limits import Positive
from aptlab.nn.norm import RMSNorm
from aptlab.nn.smooth.branch_scale import BranchScale


class PostNorm(BranchScale):
    """u' = u + delta / rms(delta) · weight: every branch adds a step of learned size (Gemma 2, arXiv:2408.00118).

    With the block's own pre-norm this is the "sandwich" of Ding et al. 2021 (CogView, arXiv:2105.13290, section 2.4),
    there with LayerNorm; block=sandwich computes the same and leaves the join free. (block=post_norm is another thing:
    a norm of the stream itself.) One weight [C] per site, ones at first.
    """

    plain = True

    def __init__(self, dim: int, *, layer: int, site: str, eps: Positive = 1e-5) -> None:
        super().__init__(dim, layer=layer, site=site)
        self.norm = RMSNorm(dim, eps=eps)

    def scale_step(self, delta_BTC: Tensor) -> Tensor:
        """The normalised branch."""
        return self.norm(delta_BTC)
