"""Feed-forward layers."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from aptlab.limits import OpenFraction
from aptlab.nn.shape import Shape


class SwiGLU(nn.Module):
    """down(silu(gate(x)) · up(x)) (Shazeer 2020, arXiv:2002.05202, eq. 6).

    gate and up are one matrix [2·hidden, dim], so that a step launches two products instead of three.
    """

    def __init__(self, shape: Shape, *, bias: bool = False, dropout: OpenFraction = 0.0) -> None:
        super().__init__()
        self.gate_up = nn.Linear(shape.dim, 2 * shape.hidden, bias=bias)
        self.down = nn.Linear(shape.hidden, shape.dim, bias=bias)
        self.dropout = dropout

    def forward(self, x_BTC: Tensor) -> Tensor:
        gate, up = self.gate_up(x_BTC).chunk(2, dim=-1)
        out = self.down(F.silu(gate) * up)
        return F.dropout(out, self.dropout, self.training) if self.dropout else out


class GELU(nn.Module):
    """down(gelu(up(x))), the exact gelu (Hendrycks & Gimpel 2016, arXiv:1606.08415)."""

    def __init__(self, shape: Shape, *, bias: bool = False, dropout: OpenFraction = 0.0) -> None:
        super().__init__()
        self.up = nn.Linear(shape.dim, shape.hidden, bias=bias)
        self.down = nn.Linear(shape.hidden, shape.dim, bias=bias)
        self.dropout = dropout

    def forward(self, x_BTC: Tensor) -> Tensor:
        out = self.down(F.gelu(self.up(x_BTC)))
        return F.dropout(out, self.dropout, self.training) if self.dropout else out
