"""Token embeddings that are not a bare table. Legend: B batch, T tokens, V vocabulary, C dim."""

from __future__ import annotations

from torch import Tensor, nn

from aptlab.limits import Positive


class ScaledEmbedding(nn.Embedding):
    """Row `token` of a learned table [V, C], times a fixed factor; built as factory(V, C).

    The factor lets the stream start as large as its width asks while the table, which a tied head shares, starts as
    small as a head must: an input multiplier of muP (Yang et al. 2022, arXiv:2203.03466, table 8), sqrt(C) in Vaswani
    et al. 2017 (arXiv:1706.03762, section 3.4), Granite's `embedding_multiplier`.
    """

    def __init__(self, vocab: int, dim: int, *, scale: Positive = 12.0) -> None:
        super().__init__(vocab, dim)
        self.scale = scale

    def forward(self, input: Tensor) -> Tensor:
        """Rows of tokens [B, T] times the factor, [B, T, C] in the dtype of the table."""
        return super().forward(input) * self.scale

    def extra_repr(self) -> str:
        """Sizes and the factor, for printing."""
        return f"{super().extra_repr()}, scale={self.scale}"
