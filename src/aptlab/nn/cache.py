"""Keys and values of the tokens seen so far, for decoding one token at a time.

Legend: B batch, K key/value heads, S cached tokens, T new tokens, D head dim.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aptlab.errors import AptlabError


class KVCache:
    """Preallocated keys and values of every layer, and the segment of every cached token.

    A token's segment is 0 where the token is padding; a query sees keys of its own segment only.
    """

    def __init__(self, keys: Tensor, values: Tensor, segments: Tensor) -> None:
        self.keys_LBKSD, self.values_LBKSD, self.segments_BS = keys, values, segments
        self.length = 0
        self.padded = False  # whether any segments were given: only then is a mask needed

    @classmethod
    def empty(
        cls,
        *,
        depth: int,
        batch: int,
        kv_heads: int,
        head_dim: int,
        length: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> KVCache:
        """Room for `length` tokens; 2 · depth · batch · kv_heads · length · head_dim numbers."""
        size = (depth, batch, kv_heads, length, head_dim)
        keys, values = (torch.zeros(size, dtype=dtype, device=device) for _ in range(2))
        return cls(keys, values, torch.zeros(batch, length, dtype=torch.long, device=device))

    @property
    def capacity(self) -> int:
        return self.keys_LBKSD.shape[3]

    def reserve(self, tokens: int) -> slice:
        """The rows that the next `tokens` tokens take; an error when they do not fit."""
        if self.length + tokens > self.capacity:
            raise AptlabError(
                f"the cache holds {self.capacity} tokens and {self.length + tokens} are needed; make it longer"
            )
        return slice(self.length, self.length + tokens)

    def append(self, layer: int, k_BKTD: Tensor, v_BKTD: Tensor) -> tuple[Tensor, Tensor]:
        """Store a layer's new keys and values; returns all of that layer, [B, K, S + T, D]."""
        rows = self.reserve(k_BKTD.shape[2])
        self.keys_LBKSD[layer, :, :, rows] = k_BKTD
        self.values_LBKSD[layer, :, :, rows] = v_BKTD
        return self.keys_LBKSD[layer, :, :, : rows.stop], self.values_LBKSD[layer, :, :, : rows.stop]

    def mark(self, segments_BT: Tensor | None, tokens: int) -> Tensor:
        """Store the new tokens' segments (1 where none are given); returns all of them, [B, S + T]."""
        rows = self.reserve(tokens)
        self.padded |= segments_BT is not None
        self.segments_BS[:, rows] = 1 if segments_BT is None else segments_BT
        return self.segments_BS[:, : rows.stop]

    def advance(self, tokens: int) -> None:
        """Count `tokens` as seen, after every layer has stored them."""
        self.length += tokens
