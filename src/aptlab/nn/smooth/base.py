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

    def reset_parameters(self, std: float, depth: int) -> None:
        """Weights stay as they were built; a rule that starts otherwise overrides this."""
        del std, depth
