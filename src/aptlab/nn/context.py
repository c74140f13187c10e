"""What one forward pass knows about its tokens, and the slots in which layers say more than their output.

Legend: B batch, T new tokens, S all tokens with the cached ones, N streams of positions, C dim.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from aptlab.errors import AptlabError
from aptlab.nn.positions.rotary import Angles
from aptlab.nn.segments import POSITIONS, DocumentCount, compute_segment_lengths, count_positions, find_next_positions
from aptlab.nn.width import FULL

if TYPE_CHECKING:  # the package of layers imports this module
    from aptlab.nn.attention.cache import KVCache


class KeySource(NamedTuple):
    """States that cross attention takes its keys from, as the output of an encoder.

    states    [B, S, C]
    segments  int64 [B, S], 0 = padding; a query sees keys of its own segment; None = all of the row's
    """

    states: Tensor
    segments: Tensor | None = None


class ForwardContext:
    """Positions, segments and cache of a forward pass, and the slots of its layers.

    positions  int64 [B or 1, T] or [B or 1, T, N]; None = counted on from the cache
    segments   int64 [B, T]; a token sees tokens of its own segment; 0 = padding; None = one segment
    lengths    int64 [B, T], tokens of the sequence that each belongs to; None = from the cache or the positions
    causal     whether a token sees earlier tokens only; without, all of its segment (not with a cache)
    source     where cross attention takes its keys from
    tracing    whether layers are asked for statistics
    widths     set before the first block: share of its hidden units that a nested layer works with, one for each block;
               None = all of them

    Slots belong to the site that runs ("3/ffn"), are set and never added to, and so stay right where activation
    checkpointing runs a block twice:

    aux     loss terms, by "3/ffn/balance"                  trace   statistics, by "3/ffn"
    carry   what the same site of the block before handed on; `set_carry` hands it to the next block's
    state   what the site kept at the end of the earlier tokens; `set_state` replaces it for the later ones. Earlier
            tokens are those of the cache, or without one those of the segment before (`start_segment`)

    Angles and masks are made once and shared by layers. What is shared holds no gradient, or is made before the first
    block (`prepare`): a block that is recomputed must save the same tensors as the first time.
    """

    def __init__(
        self,
        tokens: int,
        *,
        positions: Tensor | None = None,
        segments: Tensor | None = None,
        lengths: Tensor | None = None,
        cache: KVCache | None = None,
        causal: bool = True,
        source: KeySource | None = None,
        tracing: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        if cache is not None and not causal:
            raise AptlabError("a cache holds earlier tokens, and this pass is not causal; read the whole text at once")
        self.tokens, self.cache, self.causal, self.source, self.tracing = tokens, cache, causal, source, tracing
        self.widths: tuple[float, ...] | None = None
        self.past = cache.length if cache is not None else 0
        self.counted = positions is None
        if positions is None:
            positions = torch.arange(self.past, self.past + tokens, device=device).unsqueeze(0)
        self.positions = positions
        self.positions_BT = positions if positions.ndim == 2 else positions[..., 0]  # order, chunks and biases go by it
        if cache is not None:
            cache.mark(segments, None if self.counted else self.positions_BT, tokens)
            if segments is None and cache.padded:
                segments = cache.segments_BS[:, self.past : self.past + tokens]
        self.segments = segments
        self.site = ""
        self.carry: Any = None
        self.next_carry: Any = None
        self.aux: dict[str, Tensor] = {}
        self.traces: dict[str, dict[str, Tensor]] = {}
        self.states: dict[str, Any] = {}
        self._earlier: Mapping[str, Any] | None = None
        self._lengths = lengths
        self._angles: dict[int, Angles] = {}
        self._masks: dict[Any, Tensor | None] = {}

    def read_width(self, layer: int) -> float:
        """The width of the nested layer of a block."""
        return FULL if self.widths is None else self.widths[layer]

    # Slots

    def enter_site(self, site: str, carry: Any = None) -> None:
        """Begin a site: slots are its own from here; `carry` is what the block before handed on."""
        self.site, self.carry, self.next_carry = site, carry, None

    def set_carry(self, value: Any) -> None:
        """Hand something to the same site of the next block; the last value counts."""
        self.next_carry = value

    def set_aux(self, name: str, loss: Tensor) -> None:
        """A scalar loss term of this site; the objective weighs terms by their name."""
        self.aux[f"{self.site}/{name}"] = loss

    def set_trace(self, values: dict[str, Tensor], *, part: str | None = None) -> None:
        """Statistics of this site, detached; those of a `part` of it stand beside its own, as "3/attention/qk"."""
        self.traces[self.site if part is None else f"{self.site}/{part}"] = values

    @property
    def state(self) -> Any:
        """What this site kept at the end of the earlier tokens, None where they are the first."""
        earlier = self._earlier if self.cache is None else self.cache.states
        return None if earlier is None else earlier.get(self.site)

    def set_state(self, value: Any, *, part: str | None = None) -> None:
        """What this site, or a `part` of it, keeps for later tokens; it counts from the next pass on."""
        self.states[self.site if part is None else f"{self.site}/{part}"] = value

    def read_state(self, part: str) -> Any:
        """What a part of this site kept at the end of the earlier tokens, None where they are the first."""
        return None if self.cache is None else self.cache.states.get(f"{self.site}/{part}")

    def store_keys(self, k_BKTD: Tensor, v_BKTD: Tensor) -> tuple[Tensor, Tensor]:
        """The site's keys and values with those of earlier tokens that the new ones may see, [B, K, <= S, D]."""
        return (k_BKTD, v_BKTD) if self.cache is None else self.cache.append(self.site, k_BKTD, v_BKTD)

    def finish(self, rows: int = 1) -> None:
        """Count the tokens as seen and keep the sites' states, after the last block."""
        if self.cache is not None:
            self.cache.states.update(self.states)
            self.cache.advance(self.tokens)
        elif self._earlier is not None or self.states:
            before = self._read_count()
            self.states[POSITIONS] = find_next_positions(self.positions_BT, self.segments, before, rows)

    def start_segment(self, states: Mapping[str, Any], rows: int) -> None:
        """Go on from what sites kept at the end of the segment before ({} = this is the first), before the first block.

        Positions that were not given go on within each document: those of the row's last one from where it stopped,
        those of a new one from 0. AptlabError for a pass with a cache, and for one that is not causal.
        """
        if self.cache is not None or not self.causal:
            other = "a cache, which keeps states itself" if self.cache is not None else "a pass that is not causal"
            raise AptlabError(f"states of the segment before do not go with {other}; leave one of the two out")
        self._earlier = states
        before = self._read_count()
        if self.counted and (before is not None or self.segments is not None):
            ones_BT = torch.ones_like(self.positions_BT).expand(rows, -1)
            zeros_B = torch.zeros_like(ones_BT[:, 0])
            names_BT = ones_BT if self.segments is None else self.segments
            positions = count_positions(names_BT, before or DocumentCount(zeros_B, zeros_B))
            self.positions = self.positions_BT = positions
            self.counted = False

    def _read_count(self) -> DocumentCount | None:
        """Where the row's document stood at the end of the segment before."""
        kept = None if self._earlier is None else self._earlier.get(POSITIONS)
        return None if kept is None else DocumentCount(*kept)  # a loaded state is a plain tuple

    # Positions

    @property
    def end(self) -> int:
        """Tokens seen with the new ones."""
        return self.past + self.tokens

    @property
    def simple(self) -> bool:
        """Whether attention is causal over one segment counted from 0: then masks have a known shape."""
        cached_positions = self.cache is not None and self.cache.has_positions
        return self.causal and self.segments is None and self.counted and not cached_positions

    @property
    def keys(self) -> Tensor:
        """Positions of all keys, [B or 1, S]."""
        return self.positions_BT if self.cache is None else self.cache.positions_BS[:, : self.end]

    @property
    def key_segments(self) -> Tensor | None:
        """Segments of all keys, [B, S]."""
        if self.segments is None or self.cache is None:
            return self.segments
        return self.cache.segments_BS[:, : self.end]

    def prepare(self, rotaries: Any) -> None:
        """Make the angles that are learned before the first block, where no recomputation can miss them."""
        for rotary in rotaries:
            if any(True for _ in rotary.parameters()):
                self.angles(rotary)

    def angles(self, rotary: Any) -> Angles:
        """The angles of the new tokens by one of the model's rotary modules."""
        if id(rotary) not in self._angles:
            lengths = self.lengths() if rotary.adaptive else None
            self._angles[id(rotary)] = rotary.angles(self.positions, lengths)
        return self._angles[id(rotary)]

    def lengths(self) -> Tensor:
        """Tokens of the sequence that each new token belongs to, [B or 1, T]."""
        if self._lengths is None:
            counted = self.cache is None
            self._lengths = (
                compute_segment_lengths(self.positions_BT, self.segments) if counted else self._cached_lengths()
            )
        return self._lengths

    def _cached_lengths(self) -> Tensor:
        assert self.cache is not None
        if self.cache.lengths_B is None:
            return torch.full_like(self.positions_BT, self.cache.capacity)
        return self.cache.lengths_B.unsqueeze(1).expand(-1, self.tokens)

    # Masks

    def mask(self, *, chunk: int | None = None, window: int | None = None, dense: bool = False) -> Tensor | None:
        """Which keys each query sees, bool [B or 1, 1, T, S].

        None where plain attention (causal or not) over all keys says it, unless `dense` asks for the mask itself.
        chunk   keys in the query's own block of this many positions
        window  the query's own key and those up to window - 1 before it (and after it where attention is not causal)
        """
        if not torch.compiler.is_exporting():  # an exported graph is for any length, and none may decide its form
            if window is not None and window >= self.end:
                window = None
            if chunk is not None and self.simple and chunk >= self.end:
                chunk = None
        form = (chunk, window, dense)
        if form not in self._masks:
            plain = self.segments is None and chunk is None and window is None
            square = self.past == 0 or self.tokens == 1
            self._masks[form] = None if plain and square and not dense else self._mask(chunk, window)
        return self._masks[form]

    def _mask(self, chunk: int | None, window: int | None) -> Tensor:
        device = self.positions_BT.device
        queries_T1 = torch.arange(self.past, self.end, device=device).unsqueeze(1)
        keys_S = torch.arange(self.end, device=device)
        seen_TS = keys_S <= queries_T1 if self.causal else torch.ones_like(keys_S <= queries_T1)
        if window is not None:
            near_TS = keys_S > queries_T1 - window
            seen_TS = seen_TS & (near_TS if self.causal else near_TS & (keys_S < queries_T1 + window))
        seen_BTS = seen_TS.unsqueeze(0)
        if chunk is not None:
            seen_BTS = seen_BTS & (self.positions_BT.unsqueeze(2) // chunk == self.keys.unsqueeze(1) // chunk)
        if self.segments is not None and self.key_segments is not None:
            seen_BTS = seen_BTS & (self.segments.unsqueeze(2) == self.key_segments.unsqueeze(1))
        return seen_BTS.unsqueeze(1)
