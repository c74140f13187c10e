"""Keys and values of the tokens seen so far, for decoding one token at a time.

Legend: B batch, K key/value heads, S cached tokens, T new tokens, D head dim, N streams of positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from aptlab.errors import AptlabError


class FullLayerCache:
    """A layer's keys and values of all tokens."""

    def __init__(self, keys_BKSD: Tensor, values_BKSD: Tensor) -> None:
        self.keys_BKSD, self.values_BKSD = keys_BKSD, values_BKSD
        self.length = 0

    def append(self, k_BKTD: Tensor, v_BKTD: Tensor) -> tuple[Tensor, Tensor]:
        """Store new keys and values; returns all, [B, K, S + T, D]."""
        end = self.length + k_BKTD.shape[2]
        self.keys_BKSD[:, :, self.length : end] = k_BKTD
        self.values_BKSD[:, :, self.length : end] = v_BKTD
        self.length = end
        return self.keys_BKSD[:, :, :end], self.values_BKSD[:, :, :end]

    def held(self) -> Tensor:
        """The keys that are kept, as a view that may be written to."""
        return self.keys_BKSD[:, :, : self.length]


class RollingLayerCache:
    """A layer's last keys and values, where it sees `reach` tokens at most, itself included.

    There is room for twice the reach, so that moving the kept ones to the front is rare.
    """

    def __init__(self, keys_BKSD: Tensor, values_BKSD: Tensor, reach: int) -> None:
        self.keys_BKSD, self.values_BKSD, self.reach = keys_BKSD, values_BKSD, reach
        self.length = 0

    def append(self, k_BKTD: Tensor, v_BKTD: Tensor) -> tuple[Tensor, Tensor]:
        """Store new keys and values; returns those that the new tokens may see, at most [B, K, reach - 1 + T, D]."""
        tokens, kept = k_BKTD.shape[2], min(self.length, self.reach - 1)
        if self.length + tokens > self.keys_BKSD.shape[2]:
            old = [x[:, :, self.length - kept : self.length].clone() for x in (self.keys_BKSD, self.values_BKSD)]
            if kept + tokens > self.keys_BKSD.shape[2]:
                k, v = torch.cat((old[0], k_BKTD), 2), torch.cat((old[1], v_BKTD), 2)
                self.length = min(self.reach - 1, kept + tokens)
                self.keys_BKSD[:, :, : self.length] = k[:, :, k.shape[2] - self.length :]
                self.values_BKSD[:, :, : self.length] = v[:, :, v.shape[2] - self.length :]
                return k, v
            self.keys_BKSD[:, :, :kept], self.values_BKSD[:, :, :kept] = old
            self.length = kept
        end = self.length + tokens
        self.keys_BKSD[:, :, self.length : end] = k_BKTD
        self.values_BKSD[:, :, self.length : end] = v_BKTD
        begin, self.length = self.length - kept, end
        return self.keys_BKSD[:, :, begin:end], self.values_BKSD[:, :, begin:end]

    def held(self) -> Tensor:
        """The keys that are kept, as a view that may be written to."""
        return self.keys_BKSD[:, :, : self.length]


class KVCache:
    """Preallocated keys and values of every layer, and of every cached token its segment and position.

    A token's segment is 0 where the token is padding; a query sees keys of its own segment only.

    lengths  int64 [B]: tokens that each row will have in the end. Rules that choose by length choose by this,
             when the sequence begins; None = the capacity
    states   what layers without keys keep, by layer
    """

    def __init__(
        self, layers: Sequence[FullLayerCache | RollingLayerCache], *, batch: int, capacity: int, lengths: Tensor | None
    ) -> None:
        device = layers[0].keys_BKSD.device
        self.layers, self.capacity, self.lengths_B = list(layers), capacity, lengths
        self.segments_BS = torch.zeros(batch, capacity, dtype=torch.long, device=device)
        self.places_BS = torch.zeros(batch, capacity, dtype=torch.long, device=device)
        self.states: dict[int, Any] = {}
        self.length = 0
        self.padded = False  # whether any segments were given: only then is a mask needed
        self.placed = False  # whether any positions were given

    @classmethod
    def empty(
        cls,
        *,
        reach: Sequence[int | None],
        batch: int,
        kv_heads: int,
        head_dim: int,
        length: int,
        lengths: Tensor | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> KVCache:
        """Room for `length` tokens; `reach` says how many each layer sees, None = all.

        Layers that see all take 2 · batch · kv_heads · length · head_dim numbers, others twice their reach at most.
        """
        layers: list[FullLayerCache | RollingLayerCache] = []
        for one in reach:
            rolls = one is not None and 2 * one < length
            size = (batch, kv_heads, 2 * one if one is not None and rolls else length, head_dim)
            keys, values = (torch.zeros(size, dtype=dtype, device=device) for _ in range(2))
            layers.append(
                RollingLayerCache(keys, values, one) if one is not None and rolls else FullLayerCache(keys, values)
            )
        return cls(layers, batch=batch, capacity=length, lengths=lengths)

    def bytes(self) -> int:
        """Memory of keys and values."""
        return sum(2 * layer.keys_BKSD.nbytes for layer in self.layers)

    def reserve(self, tokens: int) -> slice:
        """The rows that the next `tokens` tokens take; an error when they do not fit."""
        if self.length + tokens > self.capacity:
            raise AptlabError(
                f"the cache holds {self.capacity} tokens and {self.length + tokens} are needed; make it longer"
            )
        return slice(self.length, self.length + tokens)

    def append(self, layer: int, k_BKTD: Tensor, v_BKTD: Tensor) -> tuple[Tensor, Tensor]:
        """Store a layer's new keys and values; returns those that its new tokens may see, [B, K, <= S + T, D]."""
        self.reserve(k_BKTD.shape[2])
        return self.layers[layer].append(k_BKTD, v_BKTD)

    def mark(self, segments_BT: Tensor | None, places_BT: Tensor | None, tokens: int) -> None:
        """Store the new tokens' segments (1 where none are given) and positions (counted where none are given)."""
        rows = self.reserve(tokens)
        self.padded |= segments_BT is not None
        self.placed |= places_BT is not None
        self.segments_BS[:, rows] = 1 if segments_BT is None else segments_BT
        counted = torch.arange(rows.start, rows.stop, device=self.places_BS.device)
        self.places_BS[:, rows] = counted if places_BT is None else places_BT

    def advance(self, tokens: int) -> None:
        """Count `tokens` as seen, after every layer has stored them."""
        self.length += tokens

    def clear(self) -> None:
        """Forget everything, to read the sequence again."""
        self.length, self.padded, self.placed = 0, False, False
        self.states.clear()
        for layer in self.layers:
            layer.length = 0
