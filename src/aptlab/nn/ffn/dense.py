"""Feed-forward layers."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aptlab.errors import ConfigError
from aptlab.limits import OpenFraction, Positive
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


class GeGLU(nn.Module):
    """down(gelu(gate(x)) · up(x)) (Shazeer 2020, arXiv:2002.05202, eq. 6).

    gate and up are one matrix [2·hidden, dim], as in `SwiGLU`.

    approximate  none = the exact gelu, as in the paper; tanh = z/2 · (1 + tanh(sqrt(2/pi) · (z + 0.044715 z³)))
                 (Hendrycks & Gimpel 2016, arXiv:1606.08415, section 2), as in Gemma; they differ by up to 5e-4
    """

    def __init__(
        self,
        shape: Shape,
        *,
        bias: bool = False,
        dropout: OpenFraction = 0.0,
        approximate: Literal["none", "tanh"] = "none",
    ) -> None:
        super().__init__()
        if approximate not in ("none", "tanh"):
            raise ConfigError(f"approximate={approximate!r}; allowed: none (exact), tanh (as in Gemma)")
        self.gate_up = nn.Linear(shape.dim, 2 * shape.hidden, bias=bias)
        self.down = nn.Linear(shape.hidden, shape.dim, bias=bias)
        self.dropout, self.approximate = dropout, approximate

    def forward(self, x_BTC: Tensor) -> Tensor:
        gate, up = self.gate_up(x_BTC).chunk(2, dim=-1)
        out = self.down(F.gelu(gate, approximate=self.approximate) * up)
        return F.dropout(out, self.dropout, self.training) if self.dropout else out


class ClampedSwiGLU(nn.Module):
    """down(g · sigmoid(alpha g) · (u + 1)), g = min(gate(x), limit), u = up(x) within [-limit, limit].

    The gate of gpt-oss (OpenAI 2025, arXiv:2508.10925), by its released code: no activation can be larger than
    limit · (limit + 1), and a unit whose u is 0 still passes its gate on. gate and up are one matrix, as in `SwiGLU`.
    """

    def __init__(
        self,
        shape: Shape,
        *,
        bias: bool = True,
        dropout: OpenFraction = 0.0,
        alpha: Positive = 1.702,
        limit: Positive = 7.0,
    ) -> None:
        super().__init__()
        self.gate_up = nn.Linear(shape.dim, 2 * shape.hidden, bias=bias)
        self.down = nn.Linear(shape.hidden, shape.dim, bias=bias)
        self.dropout, self.alpha, self.limit = dropout, alpha, limit

    def forward(self, x_BTC: Tensor) -> Tensor:
        gate, up = self.gate_up(x_BTC).chunk(2, dim=-1)
        gate, up = gate.clamp(max=self.limit), up.clamp(-self.limit, self.limit)
        out = self.down(gate * torch.sigmoid(self.alpha * gate) * (up + 1))
        return F.dropout(out, self.dropout, self.training) if self.dropout else out
