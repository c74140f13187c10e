"""What a model gives back. Legend: B batch, T tokens, C dim, V vocabulary, K classes, N classes of the newest task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

Traces = dict[str, dict[str, Tensor]]


class Hidden(NamedTuple):
    """States after the last norm, which the head reads [B, T, C], loss terms and statistics of the sites.

    aux     scalar loss terms by "3/ffn/balance"
    traces  statistics by "3/ffn"
    states  what sites keep for the next segment, by "3/attention"; tensors whose first dim is B, in tuples and dicts
    """

    hidden: Tensor
    aux: dict[str, Tensor]
    traces: Traces
    states: Mapping[str, Any] = {}


class Output(NamedTuple):
    """Logits of every token's successor [B, T, V], and what `Hidden` says."""

    logits: Tensor
    hidden: Tensor
    aux: dict[str, Tensor]
    traces: Traces
    states: Mapping[str, Any] = {}


class GrowingOutput(NamedTuple):
    """What a network that learns classes task by task gives for rows.

    logits      [B, K] in the order of the classes' numbers; `UNKNOWN` for a class that no task has brought yet
    hidden      the newest task's vector of each row, [B, C]
    known       int64, the classes there are, those of the first task first; the last `new` of them are being learned
    divergence  [B, 1 + N]: any older class, and each of the newest task's; None where there is no older one, or where
                the network is not being trained
    """

    logits: Tensor
    hidden: Tensor
    aux: dict[str, Tensor]
    traces: Traces
    known: Tensor
    new: int
    divergence: Tensor | None = None
