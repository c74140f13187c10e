"""Keys and values of the tokens seen so far, for decoding one token at a time.

Legend: B batch, K key/value heads, S cached tokens, T new tokens, D head dim, N streams of positions.
"""

from __future__ import annotations

from collections.abc import Mapping
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

    def stored_keys(self) -> Tensor:
        """The keys that are kept, as a view that may be written to."""
        return self.keys_BKSD[:, :, : self.length]


class RollingLayerCache:
    """A layer's last keys and values, where a token sees `max_keys` at most, its own included.

    There is room for twice as many, so that moving the kept ones to the front is rare.
    """

    def __init__(self, keys_BKSD: Tensor, values_BKSD: Tensor, max_keys: int) -> None:
        self.keys_BKSD, self.values_BKSD, self.max_keys = keys_BKSD, values_BKSD, max_keys
        self.length = 0

    def append(self, k_BKTD: Tensor, v_BKTD: Tensor) -> tuple[Tensor, Tensor]:
        """Store new keys and values; returns those that the new tokens may see, at most [B, K, max_keys - 1 + T, D]."""
        tokens, retained = k_BKTD.shape[2], min(self.length, self.max_keys - 1)
        if self.length + tokens > self.keys_BKSD.shape[2]:
            old = [x[:, :, self.length - retained : self.length].clone() for x in (self.keys_BKSD, self.values_BKSD)]
            if retained + tokens > self.keys_BKSD.shape[2]:
                k, v = torch.cat((old[0], k_BKTD), 2), torch.cat((old[1], v_BKTD), 2)
                self.length = min(self.max_keys - 1, retained + tokens)
                self.keys_BKSD[:, :, : self.length] = k[:, :, k.shape[2] - self.length :]
                self.values_BKSD[:, :, : self.length] = v[:, :, v.shape[2] - self.length :]
                return k, v
            self.keys_BKSD[:, :, :retained], self.values_BKSD[:, :, :retained] = old
            self.length = retained
        end = self.length + tokens
        self.keys_BKSD[:, :, self.length : end] = k_BKTD
        self.values_BKSD[:, :, self.length : end] = v_BKTD
        begin, self.length = self.length - retained, end
        return self.keys_BKSD[:, :, begin:end], self.values_BKSD[:, :, begin:end]

    def stored_keys(self) -> Tensor:
        """The keys that are kept, as a view that may be written to."""
        return self.keys_BKSD[:, :, : self.length]


class KVCache:
    """Preallocated keys and values of every site that mixes tokens, and each cached token's segment and position.

    A token's segment is 0 where the token is padding; a query sees keys of its own segment only.

    layers   by site ("3/attention")
    lengths  int64 [B]: tokens that each row will have in the end. Rules that choose by length choose by this,
             when the sequence begins; None = the capacity
    states   what sites keep beside keys and values, by site
    """

    def __init__(
        self,
        layers: Mapping[str, FullLayerCache | RollingLayerCache],
        *,
        batch: int,
        capacity: int,
        lengths: Tensor | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.layers, self.capacity, self.lengths_B = dict(layers), capacity, lengths
        self.segments_BS = torch.zeros(batch, capacity, dtype=torch.long, device=device)
        self.positions_BS = torch.zeros(batch, capacity, dtype=torch.long, device=device)
        self.states: dict[str, Any] = {}
        self.length = 0
        self.padded = False  # whether any segments were given: only then is a mask needed
        self.has_positions = False  # whether any positions were given

    @classmethod
    def empty(
        cls,
        *,
        max_keys: Mapping[str, int | None],
        batch: int,
        kv_heads: int,
        head_dim: int,
        length: int,
        lengths: Tensor | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> KVCache:
        """Room for `length` tokens; `max_keys` says by site how many a token sees, None = all.

        Sites that see all take 2 · batch · kv_heads · length · head_dim numbers, others 2 · max_keys tokens at most.
        """
        layers: dict[str, FullLayerCache | RollingLayerCache] = {}
        for site, limit in max_keys.items():
            room = length if limit is None else min(length, 2 * limit)
            size = (batch, kv_heads, room, head_dim)
            keys, values = (torch.zeros(size, dtype=dtype, device=device) for _ in range(2))
            rolls = limit is not None and room < length
            layers[site] = RollingLayerCache(keys, values, limit or 0) if rolls else FullLayerCache(keys, values)
        return cls(layers, batch=batch, capacity=length, lengths=lengths, device=device)

    def bytes(self) -> int:
        """Memory of keys and values."""
        return sum(2 * layer.keys_BKSD.nbytes for layer in self.layers.values())

    def reserve(self, tokens: int) -> slice:
        """The rows that the next `tokens` tokens take; an error when they do not fit."""
        if self.length + tokens > self.capacity:
            raise AptlabError(
                f"the cache holds {self.capacity} tokens and {self.length + tokens} are needed; make it longer"
            )
        return slice(self.length, self.length + tokens)

    def append(self, site: str, k_BKTD: Tensor, v_BKTD: Tensor) -> tuple[Tensor, Tensor]:
        """Store a site's new keys and values; returns those that its new tokens may see, [B, K, <= S + T, D]."""
        self.reserve(k_BKTD.shape[2])
        return self.layers[site].append(k_BKTD, v_BKTD)

    def mark(self, segments_BT: Tensor | None, positions_BT: Tensor | None, tokens: int) -> None:
        """Store the new tokens' segments (1 where none are given) and positions (counted where none are given)."""
        rows = self.reserve(tokens)
        self.padded |= segments_BT is not None
        self.has_positions |= positions_BT is not None
        self.segments_BS[:, rows] = 1 if segments_BT is None else segments_BT
        counted = torch.arange(rows.start, rows.stop, device=self.positions_BS.device)
        self.positions_BS[:, rows] = counted if positions_BT is None else positions_BT

    def advance(self, tokens: int) -> None:
        """Count `tokens` as seen, after every layer has stored them."""
        self.length += tokens

    def truncate(self, length: int) -> None:
        """Forget all but the first `length` tokens. AptlabError where a layer has let go of earlier keys, or states."""
        if self.states or any(isinstance(layer, RollingLayerCache) for layer in self.layers.values()):
            raise AptlabError(
                "tokens cannot be taken back from this cache: some of its layers keep a state or the last keys alone; "
                "make it by new_cache(..., rolling=False), of a model whose layers keep no state"
            )
        self.length = length
        for layer in self.layers.values():
            layer.length = length

    def select_rows(self, rows_B: Tensor) -> None:
        """Row i goes on as row rows_B[i] was, int64 [B]: hypotheses of a beam search that go on, or not."""
        for layer in self.layers.values():
            for held_BKSD in (layer.keys_BKSD, layer.values_BKSD):
                held_BKSD[:, :, : layer.length] = held_BKSD[:, :, : layer.length][rows_B]
        self.segments_BS, self.positions_BS = self.segments_BS[rows_B], self.positions_BS[rows_B]
        if self.lengths_B is not None:
            self.lengths_B = self.lengths_B[rows_B]
        self.states = {site: select_state_rows(state, rows_B) for site, state in self.states.items()}

    def clear(self) -> None:
        """Forget everything, to read the sequence again."""
        self.length, self.padded, self.has_positions = 0, False, False
        self.states.clear()
        for layer in self.layers.values():
            layer.length = 0


def select_state_rows(state: Any, rows_B: Tensor) -> Any:
    """Rows of every tensor [B, …] of a state, which may be a tuple or a dict of such; what else is in it stays."""
    if isinstance(state, Tensor):
        return state[rows_B]
    if isinstance(state, tuple):
        parts = [select_state_rows(part, rows_B) for part in state]
        return type(state)(*parts) if type(state) is not tuple else tuple(parts)
    if isinstance(state, dict):
        return {name: select_state_rows(part, rows_B) for name, part in state.items()}
    return state
