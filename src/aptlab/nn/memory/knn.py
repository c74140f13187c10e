"""A long ring of keys and values of which every query reads the most similar few (Memorizing Transformers).

Legend: B rows, T tokens, R places of the ring, S = R + T keys, H query heads, K key/value heads, G = H/K, N neighbours,
W tokens of a segment, D head dim, C dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aptlab.errors import ConfigError
from aptlab.limits import Positive, PositiveInt
from aptlab.nn.attention.base import Attention
from aptlab.nn.attention.dispatch import attend_sdpa
from aptlab.nn.attention.logits import LogitRule
from aptlab.nn.attention.spec import Heads
from aptlab.nn.context import ForwardContext
from aptlab.nn.memory.base import Memory, MemoryGate
from aptlab.nn.memory.ring import KeyView, fill_places, keep_last, read_names, see_keys, start_count, view_keys
from aptlab.nn.memory.segment import SegmentMemory
from aptlab.nn.positions.layer import LayerPositions
from aptlab.nn.segments import DocumentCount, DocumentPlaces, count_documents
from aptlab.nn.shape import Shape
from aptlab.nn.window import mean_visible_keys
from aptlab.ops.measure import upcast_to_float32

QUERIES = 64  # that are compared with the whole memory at once: H · 64 · size numbers a row


class KNNState(NamedTuple):
    """Normalised keys and values of the last size + W tokens [B, K, R, D], the newest at the end."""

    keys: Tensor
    values: Tensor
    seen: Tensor
    document: Tensor


class KNNMemory(Memory):
    """Local attention within a segment, and attention to the `neighbors` best keys of up to `size` tokens before it.

    Wu et al. 2022 (arXiv:2203.08913, section 3) as in the authors' code (github.com/google-research/meliad): queries
    and keys are divided by their length and their product multiplied by a learned scale per head, in both attentions;
    the layer knows no positions; out = g · memory + (1 - g) · local with g = sigmoid(bias) per head; no gradient goes
    into what is remembered. Search is exact. Differences: the local part sees its own segment alone (theirs also the
    one before it), and where nothing is remembered yet the gate is left out.

    segment  tokens of a document, counted from its first, however passes cut it
    scale    learned scale at the start, 1 as in their code; cosines lie in [-1, 1], so 1 is an almost even attention
    layers   one layer in the published models, the fourth from the end; the others see the same segments
    """

    option = "knn"

    def __init__(
        self,
        attention: Attention,
        shape: Shape,
        *,
        layer: int,
        segment: PositiveInt = 512,
        size: PositiveInt = 32_768,
        neighbors: PositiveInt = 32,
        scale: Positive = 1.0,
        gate_init: float = 0.0,
        layers: Sequence[int] | None = (-4,),
    ) -> None:
        super().__init__(attention, shape, layer=layer, layers=layers)
        self.segment, self.size, self.neighbors, self.start_scale = segment, size, neighbors, scale
        self.gate = MemoryGate(shape.heads, init=gate_init, rate_scale=1.0)
        self.scale = nn.Parameter(torch.full((shape.heads,), float(scale)))

    def build_other(self, shape: Shape) -> Memory:
        """Attention within the same segments."""
        return SegmentMemory(self.attention, shape, layer=self.layer, segment=self.segment)

    def check_conflicts(self, positions: LayerPositions) -> None:
        """Blocks, and what would scale or add to cosines."""
        if positions.chunk is not None:
            raise ConfigError(
                f"memory=knn reaches beyond a segment, and the rope keeps attention inside blocks of {positions.chunk} "
                f"positions at layer {self.layer}; use another rope (irope: rope.chunk=null), or memory=none"
            )
        if self.attention.logits != LogitRule():
            raise ConfigError(
                f"memory=knn scales cosines itself, and attention.logits={self.attention.logits} would do so too at "
                f"layer {self.layer}; use attention=full"
            )

    def bind_positions(self, positions: LayerPositions) -> None:
        """Know none: rotation and bias are left out in this layer, as published."""
        self.check_conflicts(positions)
        super().bind_positions(LayerPositions())

    def init_state(self, rows: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> KNNState:
        """Zeros."""
        return self._start(rows, self.size + self.segment, torch.zeros((), dtype=dtype, device=device))

    def _start(self, rows: int, kept: int, like: Tensor) -> KNNState:
        size = (rows, self.attention.kv_heads, kept, self.attention.head_dim)
        return KNNState(like.new_zeros(size), like.new_zeros(size), *start_count(rows, like.device))

    def mix_segment(self, x_BTC: Tensor, state: KNNState | None, context: ForwardContext) -> tuple[Tensor, KNNState]:
        """Segments of the pass in turn, each with the memory of those before it."""
        layer, rows = self.attention, len(x_BTC)
        heads = layer.split_heads(x_BTC)
        qk, v = heads.split([layer.heads + layer.kv_heads, layer.kv_heads], dim=1)
        qk = F.normalize(upcast_to_float32(layer.normalize_qk(qk)), dim=-1).to(v.dtype)
        q, k = qk.split([layer.heads, layer.kv_heads], dim=1)
        q = q * self.scale.to(q.dtype).view(1, -1, 1, 1)
        names_BT = read_names(context, rows)
        state = self._start(rows, 0, k[:1]) if state is None else KNNState(*state)
        count_documents(names_BT, DocumentCount(state.seen, state.document))  # that each document is in one piece
        outs = []
        for begin in range(0, context.tokens, self.segment):
            part = slice(begin, begin + self.segment)
            piece = Heads(*(x[:, :, part] for x in (q, k, v)))
            out, state = self._mix_piece(piece, names_BT[:, part], state, padded=context.segments is not None)
            outs.append(out)
        # A memory of one size, but only here: pieces of a short text need not search in places that are empty.
        keys, values = (fill_places(x, self.size + self.segment) for x in state[:2])
        return layer.merge_heads(torch.cat(outs, 2).to(v.dtype)), KNNState(keys, values, *state[2:])

    def _mix_piece(self, new: Heads, names_BT: Tensor, state: KNNState, *, padded: bool) -> tuple[Tensor, KNNState]:
        before = DocumentCount(state.seen, state.document)
        places, ring = count_documents(names_BT, before), state.keys.shape[2]
        k, v = (torch.cat((old.to(x.dtype), x), 2) for old, x in zip(state[:2], new[1:], strict=True))
        near = min(ring, self.segment)
        mask = see_keys(places, view_keys(places, before, near), block=self.segment)
        spec = self.attention.attention_spec()._replace(scale=1.0)
        local = attend_sdpa(Heads(new.q, k[:, :, ring - near :], v[:, :, ring - near :]), spec, mask)
        seen_BTS = self._see_memory(places, view_keys(places, before, ring))
        memory = look_up_neighbors(Heads(new.q, k.detach(), v.detach()), seen_BTS, self.neighbors)
        out = self.gate(memory, local, seen_BTS.any(-1)[:, None, :, None])
        real = places.real if padded else None
        kept = self.size + self.segment
        keys, values = (keep_last(old, x, kept, real, fill=False) for old, x in zip(state[:2], new[1:], strict=True))
        return out, KNNState(keys, values, *places.after)

    def _see_memory(self, places: DocumentPlaces, keys: KeyView) -> Tensor:
        """The last `size` tokens of the document before each query's segment, bool [B, T, S]."""
        begin_BT1 = (places.place // self.segment * self.segment).unsqueeze(2)
        place_B1S = keys.place.unsqueeze(1)
        same = places.number.unsqueeze(2) == keys.number.unsqueeze(1)
        return same & keys.real.unsqueeze(1) & (place_B1S < begin_BT1) & (place_B1S >= begin_BT1 - self.size)

    def count_flops(self, tokens: int) -> float:
        """4 · D · H per seen key of the segment and per neighbour, 2 · D · H per key of a full memory, to find them."""
        keys = mean_visible_keys(tokens, chunk=self.segment) + min(self.neighbors, self.size)
        return self.attention.heads * self.attention.head_dim * (4 * keys + 2 * self.size)

    def reset_memory(self, std: float) -> None:
        """Gates and scales as at the start."""
        self.gate.reset()
        nn.init.constant_(self.scale, self.start_scale)

    def extra_repr(self) -> str:
        """Sizes, for printing."""
        return f"segment={self.segment}, size={self.size}, neighbors={self.neighbors}"


def look_up_neighbors(heads: Heads, seen_BTS: Tensor, neighbors: int) -> Any:
    """softmax over the best `neighbors` keys that each query sees, [B, H, T, D]; 0 where it sees none.

    Keys and values get no gradient, the search has none, the query gets that of its logits.
    """
    count = min(neighbors, heads.k.shape[2])
    groups = heads.q.shape[1] // heads.k.shape[1]
    queries = heads.q.unflatten(1, (-1, groups))  # [B, K, G, T, D]
    outs = []
    for begin in range(0, seen_BTS.shape[1], QUERIES):
        q = queries[:, :, :, begin : begin + QUERIES]
        seen = seen_BTS[:, None, None, begin : begin + QUERIES]
        with torch.no_grad():
            scores = (q @ heads.k.unsqueeze(2).mT).masked_fill(~seen, -torch.inf)
            best, index = scores.topk(count, dim=-1)  # [B, K, G, T, N]
        flat = index.flatten(2).unsqueeze(-1).expand(-1, -1, -1, heads.k.shape[-1])
        k, v = (x.gather(2, flat).view(*index.shape, -1) for x in (heads.k, heads.v))
        logits = (q.unsqueeze(-2) * k).sum(-1).masked_fill(best == -torch.inf, torch.finfo(q.dtype).min)
        weights = logits.softmax(-1) * (best > -torch.inf)
        outs.append((weights.unsqueeze(-2) @ v).squeeze(-2))
    return torch.cat(outs, 3).flatten(1, 2)
