"""What joins a layer's output to the stream. Legend: B batch, T tokens, C dim."""

from __future__ import annotations

import abc

from torch import Tensor, nn

from aptlab.nn.context import ForwardContext
from aptlab.nn.init import OwnsInit


class Smooth(OwnsInit, nn.Module, abc.ABC):
    """A residual join: u [B, T, C] and delta [B, T, C] -> the new stream [B, T, C] in u's dtype.

    Built as `factory(dim, layer=index, site=name)`. Depth history goes through `context.carry` and `set_carry`,
    statistics through `set_trace` where `context.tracing` asks for them. forward keeps nothing between calls.
    """

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

    def reset_parameters(self, std: float, depth: int) -> None:
        """Weights stay as they were built; a rule that starts otherwise overrides this."""
        del std, depth
