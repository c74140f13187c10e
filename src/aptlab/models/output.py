"""What a model gives back. Legend: B batch, T tokens, C dim, V vocabulary."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

Traces = dict[str, dict[str, Tensor]]


class Hidden(NamedTuple):
    """States after the last norm, which the head reads [B, T, C], loss terms and statistics of the sites.

    aux     scalar loss terms by "3/ffn/balance"
    traces  statistics by "3/ffn"
    """

    hidden: Tensor
    aux: dict[str, Tensor]
    traces: Traces


class Output(NamedTuple):
    """Logits of every token's successor [B, T, V], and what `Hidden` says."""

    logits: Tensor
    hidden: Tensor
    aux: dict[str, Tensor]
    traces: Traces
