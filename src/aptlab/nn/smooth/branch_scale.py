"""Joins that multiply the branch, and any of them in front of another join. Legend: B batch, T tokens, C dim."""

from __future__ import annotations

import abc
from collections.abc import Callable

from torch import Tensor

from aptlab.errors import AptlabError
from aptlab.nn.context import ForwardContext
from aptlab.nn.layer import Layer
from aptlab.nn.smooth.base import SiteInfo, Smooth
from aptlab.nn.smooth.carry import measure_join


class BranchScale(Smooth, abc.ABC):
    """A join that scales the branch and adds it: u' = u + scale(delta), which knows nothing of u."""

    def __init__(self, dim: int, *, layer: int, site: str) -> None:
        super().__init__()
        self.dim, self.layer, self.site = dim, layer, site

    @abc.abstractmethod
    def scale_step(self, delta_BTC: Tensor) -> Tensor:
        """The step, [B, T, C]; wider than delta where that costs no rounding."""

    def forward(self, u_BTC: Tensor, delta_BTC: Tensor, context: ForwardContext) -> Tensor:
        """The sum, in u's dtype."""
        step_BTC = self.scale_step(delta_BTC)
        out_BTC = (u_BTC + step_BTC).to(u_BTC.dtype)
        if context.tracing:
            context.set_trace(measure_join(u_BTC, delta_BTC, step_BTC, out_BTC))
        return out_BTC


class ScaledBranch(Smooth):
    """u' = join(u, scale(delta)): a scale of the branch in front of another join, as LayerScale before left-spin.

    scale  factory scale(dim, layer=, site=) of a `BranchScale`
    join   factory join(dim, layer=, site=) of what the scaled branch is given to

    Statistics and carry are those of `join`, so its strength is that of the scaled step. In the stream's precision the
    scaled step has delta's dtype.
    """

    def __init__(
        self, dim: int, *, layer: int, site: str, scale: Callable[..., BranchScale], join: Callable[..., Smooth]
    ) -> None:
        super().__init__()
        self.dim, self.layer, self.site = dim, layer, site
        self.scale, self.join = scale(dim, layer=layer, site=site), join(dim, layer=layer, site=site)

    def forward(self, u_BTC: Tensor, delta_BTC: Tensor, context: ForwardContext) -> Tensor:
        """The stream after the other join."""
        return self.join(u_BTC, self.scale.scale_step(delta_BTC).to(delta_BTC.dtype), context)

    def bind_site(self, info: SiteInfo) -> None:
        """Both parts learn it."""
        self.scale.bind_site(info)
        self.join.bind_site(info)

    def reset_parameters(self, std: float, depth: int) -> None:
        """Both parts start as they do alone."""
        self.scale.reset_parameters(std, depth)
        self.join.reset_parameters(std, depth)

    def start_branch(self, layer: Layer, depth: int) -> None:
        """Both parts may change it."""
        self.scale.start_branch(layer, depth)
        self.join.start_branch(layer, depth)


def require_bound(value: float | None, join: Smooth) -> float:
    """A number that a join takes from the depth of its model; AptlabError where nobody told it that."""
    if value is None:
        raise AptlabError(
            f"{type(join).__name__} goes by the depth of its model and knows none yet; call "
            "bind_site(SiteInfo(depth=…)) before it is used, as Block does"
        )
    return value
