"""Tokens of a batch by the length of their own sequence. Legend: B rows, T tokens."""

from __future__ import annotations

import torch
from torch import Tensor


def count_regime_tokens(batch: dict[str, Tensor], original_len: int) -> Tensor:
    """Tokens in sequences of at most `original_len` tokens, and in longer ones, by the positions of a batch; int64 [2].

    Nothing is read by the host.
    """
    ends, segments = batch["positions"] + 1, batch["segments"]
    lengths = segments.new_zeros(segments.shape[0], segments.shape[1] + 1)
    lengths.scatter_reduce_(1, segments, ends, "amax")
    short = (lengths.gather(1, segments) <= original_len).sum()
    return torch.stack((short, segments.numel() - short))
