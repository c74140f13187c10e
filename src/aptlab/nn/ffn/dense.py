"""Feed-forward layers with one matrix in and one out, gated or not; all of them can be nested (`MatFormer`)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aptlab.errors import ConfigError
from aptlab.limits import OpenFraction, Positive
from aptlab.nn.ffn.base import DenseFeedForward, GatedFeedForward
from aptlab.nn.ffn.matformer import MatFormer
from aptlab.nn.shape import Shape


class SwiGLU(GatedFeedForward):
    """down(silu(gate(x)) · up(x)) (Shazeer 2020, arXiv:2002.05202, eq. 6)."""

    def __init__(
        self,
        shape: Shape,
        *,
        layer: int = 0,
        bias: bool = False,
        dropout: OpenFraction = 0.0,
        nested: MatFormer | None = None,
    ) -> None:
        super().__init__(shape, layer=layer, bias=bias, dropout=dropout, nested=nested)

    def join_gate(self, gate_BTF: Tensor, up_BTF: Tensor) -> Tensor:
        """silu(gate) · up."""
        return F.silu(gate_BTF) * up_BTF


class GELU(DenseFeedForward):
    """down(gelu(up(x))) (Hendrycks & Gimpel 2016, arXiv:1606.08415).

    approximate  none = the exact gelu, as in GPT-NeoX; tanh = its approximation (section 2), as in GPT-2 and Phi
    """

    def __init__(
        self,
        shape: Shape,
        *,
        layer: int = 0,
        bias: bool = False,
        dropout: OpenFraction = 0.0,
        approximate: Literal["none", "tanh"] = "none",
        nested: MatFormer | None = None,
    ) -> None:
        check_approximation(approximate)
        super().__init__(shape, layer=layer, bias=bias, dropout=dropout, nested=nested)
        self.approximate = approximate

    def make_inputs(self, shape: Shape, bias: bool) -> None:
        """One matrix [F, C]."""
        self.up = nn.Linear(shape.dim, self.hidden, bias=bias)

    def input_matrix(self) -> nn.Linear:
        """The one."""
        return self.up

    def activate(self, read_BTF: Tensor) -> Tensor:
        """gelu of what the matrix gives."""
        return F.gelu(read_BTF, approximate=self.approximate)


class GeGLU(GatedFeedForward):
    """down(gelu(gate(x)) · up(x)) (Shazeer 2020, arXiv:2002.05202, eq. 6).

    approximate  none = the exact gelu, as in the paper; tanh = z/2 · (1 + tanh(sqrt(2/pi) · (z + 0.044715 z³)))
                 (Hendrycks & Gimpel 2016, arXiv:1606.08415, section 2), as in Gemma; they differ by up to 5e-4
    """

    def __init__(
        self,
        shape: Shape,
        *,
        layer: int = 0,
        bias: bool = False,
        dropout: OpenFraction = 0.0,
        approximate: Literal["none", "tanh"] = "none",
        nested: MatFormer | None = None,
    ) -> None:
        check_approximation(approximate)
        super().__init__(shape, layer=layer, bias=bias, dropout=dropout, nested=nested)
        self.approximate = approximate

    def join_gate(self, gate_BTF: Tensor, up_BTF: Tensor) -> Tensor:
        """gelu(gate) · up."""
        return F.gelu(gate_BTF, approximate=self.approximate) * up_BTF


class ClampedSwiGLU(GatedFeedForward):
    """down(g · sigmoid(alpha g) · (u + 1)), g = min(gate(x), limit), u = up(x) within [-limit, limit].

    The gate of gpt-oss (OpenAI 2025, arXiv:2508.10925), by its released code: no activation can be larger than
    limit · (limit + 1), and a unit whose u is 0 still passes its gate on.
    """

    def __init__(
        self,
        shape: Shape,
        *,
        layer: int = 0,
        bias: bool = True,
        dropout: OpenFraction = 0.0,
        alpha: Positive = 1.702,
        limit: Positive = 7.0,
        nested: MatFormer | None = None,
    ) -> None:
        super().__init__(shape, layer=layer, bias=bias, dropout=dropout, nested=nested)
        self.alpha, self.limit = alpha, limit

    def join_gate(self, gate_BTF: Tensor, up_BTF: Tensor) -> Tensor:
        """Clamped gate and value, as the class says."""
        gate_BTF, up_BTF = gate_BTF.clamp(max=self.limit), up_BTF.clamp(-self.limit, self.limit)
        return gate_BTF * torch.sigmoid(self.alpha * gate_BTF) * (up_BTF + 1)


def check_approximation(approximate: str) -> None:
    """Raises ConfigError for a form of gelu that does not exist."""
    if approximate not in ("none", "tanh"):
        raise ConfigError(f"approximate={approximate!r}; allowed: none (exact), tanh (as in Gemma)")
