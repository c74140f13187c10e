"""What one forward pass knows about its tokens; every layer reads it.

Legend: B batch, T new tokens, S all tokens with the cached ones, N streams of positions.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from aptlab.nn.attention.cache import KVCache
from aptlab.nn.positions.rotary import Angles


class ForwardContext:
    """Positions, segments and cache of a forward pass; angles and masks are made once and shared by layers.

    positions  int64 [B or 1, T] or [B or 1, T, N]; None = counted on from the cache
    segments   int64 [B, T]; a token sees earlier tokens of its own segment; 0 = padding; None = one segment
    lengths    int64 [B, T], tokens of the sequence that each belongs to; None = from the cache or the positions
    """

    def __init__(
        self,
        tokens: int,
        *,
        positions: Tensor | None = None,
        segments: Tensor | None = None,
        lengths: Tensor | None = None,
        cache: KVCache | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.tokens, self.cache = tokens, cache
        self.past = cache.length if cache is not None else 0
        self.counted = positions is None
        if positions is None:
            positions = torch.arange(self.past, self.past + tokens, device=device).unsqueeze(0)
        self.positions = positions
        self.places = positions if positions.ndim == 2 else positions[..., 0]  # what order, chunks and biases go by
        if cache is not None:
            cache.mark(segments, None if self.counted else self.places, tokens)
            if segments is None and cache.padded:
                segments = cache.segments_BS[:, self.past : self.past + tokens]
        self.segments = segments
        self._lengths = lengths
        self._angles: dict[int, Angles] = {}
        self._masks: dict[Any, Tensor | None] = {}

    @property
    def end(self) -> int:
        """Tokens seen with the new ones."""
        return self.past + self.tokens

    @property
    def simple(self) -> bool:
        """Whether tokens are counted from 0 and form one segment: then masks have a known shape."""
        return self.segments is None and self.counted and not (self.cache is not None and self.cache.placed)

    @property
    def keys(self) -> Tensor:
        """Positions of all keys, [B or 1, S]."""
        return self.places if self.cache is None else self.cache.places_BS[:, : self.end]

    @property
    def key_segments(self) -> Tensor | None:
        if self.segments is None or self.cache is None:
            return self.segments
        return self.cache.segments_BS[:, : self.end]

    def angles(self, rotary: Any) -> Angles:
        """The angles of the new tokens by one of the model's rotary modules."""
        if id(rotary) not in self._angles:
            lengths = self.lengths() if rotary.adaptive else None
            self._angles[id(rotary)] = rotary.angles(self.positions, lengths)
        return self._angles[id(rotary)]

    def lengths(self) -> Tensor:
        """Tokens of the sequence that each new token belongs to, [B or 1, T]."""
        if self._lengths is None:
            self._lengths = (
                self._cached_lengths()
                if self.cache is not None
                else compute_segment_lengths(self.places, self.segments)
            )
        return self._lengths

    def _cached_lengths(self) -> Tensor:
        assert self.cache is not None
        if self.cache.lengths_B is None:
            return torch.full_like(self.places, self.cache.capacity)
        return self.cache.lengths_B.unsqueeze(1).expand(-1, self.tokens)

    def mask(self, *, chunk: int | None = None, window: int | None = None, dense: bool = False) -> Tensor | None:
        """Which keys each query sees, bool [B or 1, 1, T, S].

        None where plain causal attention over all keys says it, unless `dense` asks for the mask itself.
        chunk   keys in the query's own block of this many positions
        window  the query's own key and those up to window - 1 before it
        """
        if window is not None and window >= self.end:
            window = None
        if chunk is not None and self.simple and chunk >= self.end:
            chunk = None
        asked = (chunk, window, dense)
        if asked not in self._masks:
            plain = self.segments is None and chunk is None and window is None
            square = self.past == 0 or self.tokens == 1
            self._masks[asked] = None if plain and square and not dense else self._mask(chunk, window)
        return self._masks[asked]

    def _mask(self, chunk: int | None, window: int | None) -> Tensor:
        device = self.places.device
        queries_T1 = torch.arange(self.past, self.end, device=device).unsqueeze(1)
        keys_S = torch.arange(self.end, device=device)
        seen_BTS = (keys_S <= queries_T1).unsqueeze(0)
        if window is not None:
            seen_BTS = seen_BTS & (keys_S > queries_T1 - window)
        if chunk is not None:
            seen_BTS = seen_BTS & (self.places.unsqueeze(2) // chunk == self.keys.unsqueeze(1) // chunk)
        if self.segments is not None and self.key_segments is not None:
            seen_BTS = seen_BTS & (self.segments.unsqueeze(2) == self.key_segments.unsqueeze(1))
        return seen_BTS.unsqueeze(1)


def compute_segment_lengths(places_BT: Tensor, segments_BT: Tensor | None) -> Tensor:
    """Largest position + 1 of each token's own segment; segments are numbered from 0 to T."""
    if segments_BT is None:
        return (places_BT.amax(-1, keepdim=True) + 1).expand_as(places_BT)
    places_BT = places_BT.expand_as(segments_BT)
    largest = places_BT.new_zeros(places_BT.shape[0], places_BT.shape[1] + 1)
    largest.scatter_reduce_(1, segments_BT, places_BT, "amax")
    return largest.gather(1, segments_BT) + 1
