"""Norms on queries and keys, before or after they are rotated. Legend: B batch, H heads, T tokens, D head dim."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aptlab.errors import ConfigError
from aptlab.nn.norm import LayerNorm, RMSNorm


@dataclass(frozen=True, kw_only=True)
class QKNorm:
    """How queries and keys are normalised (Dehghani et al. 2023, arXiv:2302.05442).

    kind  rms = by the root mean square; layer = the mean is taken off, too
    over  head = each head by itself, one weight [D] for all of them (Qwen 3);
          each_head = each head by itself, a weight of its own [H, D] (Command R+, StableLM 2);
          all_heads = all heads of a token together, a weight [H·D] (OLMo 2, arXiv:2501.00656)
    bias  of kind=layer over=head (Phi)
    where before the rotation, or after it (Hunyuan): another function, as weights differ within a pair
    """

    kind: Literal["rms", "layer"] = "rms"
    over: Literal["head", "each_head", "all_heads"] = "head"
    bias: bool = False
    where: Literal["before", "after"] = "before"

    def __post_init__(self) -> None:
        words = {"kind": ("rms", "layer"), "over": ("head", "each_head", "all_heads"), "where": ("before", "after")}
        for name, allowed in words.items():
            if getattr(self, name) not in allowed:
                raise ConfigError(f"{name}={getattr(self, name)!r}; allowed: {', '.join(allowed)}")
        if self.bias and (self.kind, self.over) != ("layer", "head"):
            raise ConfigError(f"bias=true goes with kind=layer and over=head, not with {self.kind}, {self.over}")

    def build(self, heads: int, head_dim: int, eps: float) -> nn.Module:
        """The norm of H heads, [B, H, T, D] -> [B, H, T, D]."""
        if self.over == "each_head":
            return EachHeadNorm(heads, head_dim, eps=eps, centred=self.kind == "layer")
        if self.over == "all_heads":
            return AllHeadsNorm(self._norm(heads * head_dim, eps))
        return self._norm(head_dim, eps)

    def _norm(self, dim: int, eps: float) -> nn.Module:
        return RMSNorm(dim, eps=eps) if self.kind == "rms" else LayerNorm(dim, eps=eps, bias=self.bias)


def resolve_qk_norm(given: bool | QKNorm) -> QKNorm | None:
    """The rule that an option means: true = RMS norm of each head, false = None."""
    if isinstance(given, bool):
        return QKNorm() if given else None
    return given


class AllHeadsNorm(nn.Module):
    """A norm of what all heads of a token hold together, [B, H, T, D]; weight [H·D], heads one after the other."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x_BHTD: Tensor) -> Tensor:
        """Heads side by side, normalised, and apart again."""
        return self.norm(x_BHTD.transpose(1, 2).flatten(2)).unflatten(-1, (-1, x_BHTD.shape[-1])).transpose(1, 2)


class EachHeadNorm(nn.Module):
    """Heads [B, H, T, D] normalised one by one, each times a row of weight [H, D]; `centred` takes the mean off.

    Statistics in float32 (float64 stays), the input's dtype comes back.
    """

    def __init__(self, heads: int, head_dim: int, *, eps: float, centred: bool) -> None:
        super().__init__()
        self.eps, self.centred = eps, centred
        self.weight = nn.Parameter(torch.ones(heads, head_dim))

    def forward(self, x_BHTD: Tensor) -> Tensor:
        """The normalised heads."""
        size = (x_BHTD.shape[-1],)
        wide = x_BHTD.to(torch.promote_types(x_BHTD.dtype, torch.float32))
        wide = F.layer_norm(wide, size, eps=self.eps) if self.centred else F.rms_norm(wide, size, eps=self.eps)
        return (wide * self.weight.to(wide.dtype).unsqueeze(1)).to(x_BHTD.dtype)
