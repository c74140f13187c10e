"""What joins a layer's output to the stream. Legend: B batch, T tokens, C dim."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from aptlab.nn.context import ForwardContext
from aptlab.nn.init import OwnsInit
from aptlab.nn.layer import Layer


@dataclass(frozen=True, kw_only=True)
class SiteInfo:
    """What a join may know of the place that it stands in.

    depth        blocks of the model
    sites        joins of one block: 2 in a decoder
    parallel     whether all sites of a block read the stream as it entered the block
    norm         whether a norm stands before the layer
    norm_after   whether one stands between the layer and the join
    norm_joined  whether one stands behind the join, in the stream itself (post-norm)
    """

    depth: int
    sites: int = 2
    parallel: bool = False
    norm: bool = True
    norm_after: bool = False
    norm_joined: bool = False

    @property
    def joins(self) -> int:
        """Joins of the whole model, 2·depth in a decoder: the number of residual layers N of GPT-2."""
        return self.depth * self.sites


class Smooth(OwnsInit, nn.Module, abc.ABC):
    """A residual join: u [B, T, C] and delta [B, T, C] -> the new stream [B, T, C] in u's dtype.

    Built as `factory(dim, layer=index, site=name)`; its block then tells it where it stands (`bind_site`). Depth
    history goes through `context.carry` and `set_carry`, statistics through `set_trace` where `context.tracing` asks
    for them. forward keeps nothing between calls.

    plain  whether the join is the same for every step and not learned, so that nobody asks for its statistics
    """

    plain: ClassVar[bool] = False

    @abc.abstractmethod
    def forward(self, u_BTC: Tensor, delta_BTC: Tensor, context: ForwardContext) -> Tensor:
        """The stream after this site."""

    def join_norm(
        self, u_BTC: Tensor, delta_BTC: Tensor, context: ForwardContext, norm: nn.Module
    ) -> tuple[Tensor, Tensor]:
        """The stream after this site, and what the norm that reads it makes of it.

        One after the other; a rule with a kernel for both overrides this and falls back on it.
        """
        out_BTC = self(u_BTC, delta_BTC, context)
        return out_BTC, norm(out_BTC)

    def bind_site(self, info: SiteInfo) -> None:
        """Learn where the join stands, once, before it is used; ConfigError for a place that it does not fit."""

    def measure_strength(self, u_BTC: Tensor, delta_BTC: Tensor, context: ForwardContext) -> Tensor | None:
        """How strong the step of each token is, [B, T, 1], by the rule's own measure; None for a rule without one."""
        del u_BTC, delta_BTC, context

    def reset_parameters(self, std: float, depth: int) -> None:
        """Weights stay as they were built; a rule that starts otherwise overrides this."""
        del std, depth

    def start_branch(self, layer: Layer, depth: int) -> None:
        """Change the start of the layer whose output is joined, after it has drawn its own; most rules do not."""
        del layer, depth
