"""Queries, keys and values of all heads, and how their attention is computed.

Legend: B batch, H query heads, K key/value heads, T new tokens, S keys, D head dim.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor


class Heads(NamedTuple):
    """Queries [B, H, T, D], keys and values [B, K, S, D]; S may leave out keys that no query sees."""

    q: Tensor
    k: Tensor
    v: Tensor


class AttentionSpec(NamedTuple):
    """Form of one layer's attention: factor on the logits, which keys are seen, dropout, what is added to the logits.

    chunk    keys of the query's own block of this many positions alone
    window   the query's own key and those up to window - 1 before it alone
    decay    per pair the factor per token of distance, and the layout of pairs; None = none
    scores   module of `aptlab.nn.positions.bias`
    sinks    [H] logits of a key without a value, one per head (Xiao et al. 2023, arXiv:2309.17453; as in gpt-oss)
    softcap  logits z become softcap · tanh(z / softcap), before `scores` is added; None = they stay
    """

    scale: float
    chunk: int | None = None
    window: int | None = None
    dropout: float = 0.0
    decay: tuple[tuple[float, ...], str] | None = None
    scores: Any = None
    sinks: Tensor | None = None
    softcap: float | None = None

    @property
    def plain(self) -> bool:
        """Whether nothing is added to the logits."""
        return self.decay is None and self.scores is None and self.sinks is None
