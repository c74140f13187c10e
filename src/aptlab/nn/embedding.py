"""Token embeddings that are not a bare table. Legend: B batch, T tokens, V vocabulary, C dim."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aptlab.limits import Positive
from aptlab.nn.init import OwnsInit


class ScaledEmbedding(OwnsInit, nn.Module):
    """Row `token` of a learned table [V, C], times a fixed factor; built as factory(V, C).

    The factor lets the stream start as large as its width asks while the table, which a tied head shares, starts as
    small as a head must: an input multiplier of muP (Yang et al. 2022, arXiv:2203.03466, table 8), sqrt(C) in Vaswani
    et al. 2017 (arXiv:1706.03762, section 3.4), Granite's `embedding_multiplier`.
    """

    def __init__(self, vocab: int, dim: int, *, scale: Positive = 12.0) -> None:
        super().__init__()
        self.scale = scale
        self.weight = nn.Parameter(torch.empty(vocab, dim))
        nn.init.normal_(self.weight)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """[B, T, C], in the dtype of the table."""
        return F.embedding(tokens_BT, self.weight) * self.scale

    def reset_parameters(self, std: float, depth: int) -> None:
        """The table starts as N(0, std); the factor does not shrink it."""
        del depth
        nn.init.normal_(self.weight, std=std)

    def extra_repr(self) -> str:
        """The factor, for printing."""
        return f"scale={self.scale}"
