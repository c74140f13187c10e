"""Normalisation layers; statistics in float32 (float64 stays), the input's dtype comes back."""

from __future__ import annotations

import abc

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aptlab.limits import Positive


class Norm(nn.Module, abc.ABC):
    """What a norm of the stream owes: built as factory(dim), called with x [..., dim]."""

    @abc.abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """The normalised x, of its shape and dtype."""


class RMSNorm(Norm):
    """x / rms(x) · weight (Zhang & Sennrich 2019, arXiv:1910.07467, eq. 4); any [..., dim]."""

    def __init__(self, dim: int, *, eps: Positive = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """The normalised x, of its shape and dtype."""
        kind = torch.promote_types(x.dtype, torch.float32)
        return F.rms_norm(x.to(kind), self.weight.shape, self.weight.to(kind), self.eps).to(x.dtype)


class LayerNorm(Norm):
    """(x - mean) / std · weight + bias (Ba et al. 2016, arXiv:1607.06450); any [..., dim]."""

    def __init__(self, dim: int, *, eps: Positive = 1e-5, bias: bool = True) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """The normalised x, of its shape and dtype."""
        kind = torch.promote_types(x.dtype, torch.float32)
        bias = None if self.bias is None else self.bias.to(kind)
        return F.layer_norm(x.to(kind), self.weight.shape, self.weight.to(kind), bias, self.eps).to(x.dtype)
