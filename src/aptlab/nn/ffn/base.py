"""What every feed-forward shares. Legend: B batch, T tokens, C dim, F hidden, K hidden units of a slice."""

from __future__ import annotations

import abc

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aptlab.errors import ConfigError
from aptlab.limits import OpenFraction
from aptlab.nn.context import ForwardContext
from aptlab.nn.ffn.matformer import MatFormer
from aptlab.nn.layer import Layer
from aptlab.nn.shape import Shape
from aptlab.nn.width import FULL, describe_widths

WHOLE = MatFormer(granularities=(FULL,))


class FeedForward(Layer, abc.ABC):
    """A layer that mixes the channels of each token; built as factory(shape, layer=index)."""


class DenseFeedForward(FeedForward, abc.ABC):
    """down(f(x)) with dropout on what is written to the stream; f [B, T, F] is what kinds differ in.

    nested  widths that the layer also works at, by slices of its matrices; None = the whole layer alone

    A slice is copied before it multiplies, so that its products have the sizes of a layer that has these units alone:
    both give the same bits. The copy is 1 / (B·T) of the work of the product.
    """

    parts = 1  # matrices [F, C] that the input matrix is made of

    def __init__(
        self, shape: Shape, *, layer: int, bias: bool, dropout: OpenFraction, nested: MatFormer | None = None
    ) -> None:
        super().__init__()
        self.layer, self.dropout, self.hidden, self.nested = layer, dropout, shape.count_hidden(layer), nested
        self.units = (nested or WHOLE).count_units(self.hidden)
        self.make_inputs(shape, bias)
        self.down = nn.Linear(self.hidden, shape.dim, bias=bias)

    @abc.abstractmethod
    def make_inputs(self, shape: Shape, bias: bool) -> None:
        """Build the matrix that reads the stream."""

    @abc.abstractmethod
    def input_matrix(self) -> nn.Linear:
        """The matrix that reads the stream: `parts` matrices [F, C], one above the other."""

    @abc.abstractmethod
    def activate(self, read_BTF: Tensor) -> Tensor:
        """The hidden units of each token, [B, T, F], from what the input matrix gives, [B, T, parts · F]."""

    def forward(self, x_BTC: Tensor, context: ForwardContext) -> Tensor:
        """Hidden units, then the stream [B, T, C]; the context is asked for the width."""
        width = context.read_width(self.layer)
        if width == FULL:
            out_BTC = self.down(self.activate(self.input_matrix()(x_BTC)))
        else:
            weight, bias, down = self.slice_weights(width)
            hidden_BTK = self.activate(F.linear(x_BTC, weight, bias))
            out_BTC = F.linear(hidden_BTK, down, self.down.bias)
        return F.dropout(out_BTC, self.dropout, self.training) if self.dropout else out_BTC

    def output_matrices(self) -> tuple[nn.Linear, ...]:
        """The matrix back to the stream."""
        return (self.down,)

    def value_weights(self) -> tuple[Tensor, ...]:
        """Both matrices."""
        return self.input_matrix().weight, self.down.weight

    @property
    def widths(self) -> tuple[float, ...]:
        """Shares of the hidden units that the layer works with, largest first."""
        return tuple(self.units)

    def count_units(self, width: float) -> int:
        """The hidden units of a width. ConfigError for one that this layer does not have."""
        if width not in self.units:
            raise ConfigError(f"width={width:g}: layer {self.layer} {describe_widths(self.widths)}")
        return self.units[width]

    def slice_weights(self, width: float) -> tuple[Tensor, Tensor | None, Tensor]:
        """Weight and bias of the input matrix and the weight of the output matrix, of the first units alone."""
        units, matrix = self.count_units(width), self.input_matrix()
        bias = None if matrix.bias is None else self.select_units(matrix.bias, slice(units))
        return self.select_units(matrix.weight, slice(units)), bias, self.down.weight[:, :units].contiguous()

    def select_units(self, rows: Tensor, units: slice | Tensor) -> Tensor:
        """Rows of the input matrix, or of its bias, that belong to these hidden units, in each of its parts."""
        return torch.cat([part[units] for part in rows.chunk(self.parts)])

    def keep_width(self, width: float) -> None:
        """Become the dense layer that a width is; the units beyond it are gone."""
        units = self.count_units(width)
        weight, bias, down = (None if part is None else part.detach() for part in self.slice_weights(width))
        matrix = self.input_matrix()
        matrix.weight, matrix.out_features = copy_parameter(matrix.weight, weight), self.parts * units
        if matrix.bias is not None:
            matrix.bias = copy_parameter(matrix.bias, bias)
        self.down.weight, self.down.in_features = copy_parameter(self.down.weight, down), units
        self.hidden, self.nested, self.units = units, None, WHOLE.count_units(units)

    def order_units(self, order_F: Tensor) -> None:
        """Put the hidden units in another order, in place: unit i is then what unit order[i] was."""
        matrix = self.input_matrix()
        for rows in (matrix.weight, matrix.bias):
            if rows is not None:
                rows.data.copy_(self.select_units(rows.data, order_F))
        self.down.weight.data.copy_(self.down.weight.data[:, order_F])

    def skip_width_flops(self, width: float) -> float:
        """FLOPs per token of the hidden units that a width leaves out: 2 per weight."""
        left = self.hidden - self.count_units(width)
        return 2.0 * left * (self.parts + 1) * self.down.out_features

    def skip_width_parameters(self, width: float) -> int:
        """Weights and biases of the hidden units that a width leaves out."""
        matrix, left = self.input_matrix(), self.hidden - self.count_units(width)
        return left * ((self.parts + 1) * self.down.out_features + (0 if matrix.bias is None else self.parts))


def copy_parameter(old: Tensor, values: Tensor | None) -> nn.Parameter:
    """A parameter with new values that is trained where the old one is."""
    assert values is not None
    return nn.Parameter(values.clone(), requires_grad=old.requires_grad)


class GatedFeedForward(DenseFeedForward, abc.ABC):
    """Gate and value are one matrix [2F, C], so that a step launches two products instead of three."""

    parts = 2

    def make_inputs(self, shape: Shape, bias: bool) -> None:
        """Gate and value as one matrix."""
        self.gate_up = nn.Linear(shape.dim, 2 * self.hidden, bias=bias)

    def input_matrix(self) -> nn.Linear:
        """Gate above value."""
        return self.gate_up

    def activate(self, read_BTF: Tensor) -> Tensor:
        """Hidden units [B, T, F] from both halves."""
        gate_BTF, up_BTF = read_BTF.chunk(2, dim=-1)
        return self.join_gate(gate_BTF, up_BTF)

    @abc.abstractmethod
    def join_gate(self, gate_BTF: Tensor, up_BTF: Tensor) -> Tensor:
        """The hidden units from gate and value."""
