"""What every feed-forward shares. Legend: B batch, T tokens, C dim, F hidden."""

from __future__ import annotations

import abc

from torch import Tensor, nn
from torch.nn import functional as F

from aptlab.limits import OpenFraction
from aptlab.nn.context import ForwardContext
from aptlab.nn.layer import Layer
from aptlab.nn.shape import Shape


class FeedForward(Layer, abc.ABC):
    """A layer that mixes the channels of each token; built as factory(shape, layer=index)."""


class DenseFeedForward(FeedForward, abc.ABC):
    """down(f(x)) with dropout on what is written to the stream; f [B, T, F] is what kinds differ in."""

    def __init__(self, shape: Shape, *, layer: int, bias: bool, dropout: OpenFraction) -> None:
        super().__init__()
        self.layer, self.dropout = layer, dropout
        self.make_inputs(shape, bias)
        self.down = nn.Linear(shape.hidden, shape.dim, bias=bias)

    @abc.abstractmethod
    def make_inputs(self, shape: Shape, bias: bool) -> None:
        """Build the matrices that read the stream."""

    @abc.abstractmethod
    def activate(self, x_BTC: Tensor) -> Tensor:
        """The hidden units of each token, [B, T, F]."""

    def forward(self, x_BTC: Tensor, context: ForwardContext) -> Tensor:
        """Hidden units, then the stream [B, T, C]; the context is not asked."""
        del context
        out_BTC = self.down(self.activate(x_BTC))
        return F.dropout(out_BTC, self.dropout, self.training) if self.dropout else out_BTC

    def output_matrices(self) -> tuple[nn.Linear, ...]:
        """The matrix back to the stream."""
        return (self.down,)


class GatedFeedForward(DenseFeedForward, abc.ABC):
    """Gate and value are one matrix [2F, C], so that a step launches two products instead of three."""

    def make_inputs(self, shape: Shape, bias: bool) -> None:
        """Gate and value as one matrix."""
        self.gate_up = nn.Linear(shape.dim, 2 * shape.hidden, bias=bias)

    def activate(self, x_BTC: Tensor) -> Tensor:
        """Hidden units [B, T, F] from both halves."""
        gate_BTF, up_BTF = self.gate_up(x_BTC).chunk(2, dim=-1)
        return self.join_gate(gate_BTF, up_BTF)

    @abc.abstractmethod
    def join_gate(self, gate_BTF: Tensor, up_BTF: Tensor) -> Tensor:
        """The hidden units from gate and value."""
