"""Attention within a segment, and nothing beyond it.

Legend: B rows, T tokens, H query heads, K key/value heads, W tokens of a segment, D head dim, C dim.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from aptlab.limits import PositiveInt
from aptlab.nn.attention.base import Attention
from aptlab.nn.attention.rotation import rotate_queries_keys
from aptlab.nn.attention.spec import Heads
from aptlab.nn.context import ForwardContext
from aptlab.nn.memory.base import Memory, check_rotation
from aptlab.nn.memory.ring import LocalKeys, LocalPiece, attend_segment, read_names, start_count, start_local
from aptlab.nn.positions.layer import LayerPositions
from aptlab.nn.segments import DocumentCount, count_documents
from aptlab.nn.shape import Shape
from aptlab.nn.window import mean_visible_keys


class SegmentState(NamedTuple):
    """Rotated keys and values [B, K, W, D] and positions [B, W] of the last tokens, the newest at the end."""

    keys: Tensor
    values: Tensor
    positions: Tensor
    seen: Tensor
    document: Tensor


class SegmentMemory(Memory):
    """Attention to earlier tokens of the own segment: what layers have that stand beside one with a memory.

    segment  tokens of a document, counted from its first, however passes cut it. So these layers see in generation what
             they saw in training, where a cache would show them the whole text
    """

    option = "segment"

    def __init__(self, attention: Attention, shape: Shape, *, layer: int, segment: PositiveInt = 512) -> None:
        super().__init__(attention, shape, layer=layer)
        self.segment = segment

    def check_conflicts(self, positions: LayerPositions) -> None:
        """Rules that keep attention in blocks of their own, decay, or choose by the length of the text."""
        check_rotation(self.option, positions, self.attention.head_dim)

    def init_state(
        self, rows: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> SegmentState:
        """Zeros."""
        return self._start(rows, self.segment, torch.zeros((), dtype=dtype, device=device))

    def _start(self, rows: int, kept: int, like: Tensor) -> SegmentState:
        local = start_local(rows, self.attention.kv_heads, kept, self.attention.head_dim, like)
        return SegmentState(*local, *start_count(rows, like.device))

    def mix_segment(
        self, x_BTC: Tensor, state: SegmentState | None, context: ForwardContext
    ) -> tuple[Tensor, SegmentState]:
        """Segments of the pass in turn."""
        layer, rows = self.attention, len(x_BTC)
        qk, v = layer.split_heads(x_BTC).split([layer.heads + layer.kv_heads, layer.kv_heads], dim=1)
        q, k = rotate_queries_keys(layer, qk, context)
        whole, names_BT = (q, k, v.to(q.dtype)), read_names(context, rows)
        state = self._start(rows, 0, k[:1]) if state is None else SegmentState(*state)
        count_documents(names_BT, DocumentCount(state.seen, state.document))  # that each document is in one piece
        positions_BT, outs = context.positions_BT.expand(rows, -1), []
        for begin in range(0, context.tokens, self.segment):
            part = slice(begin, begin + self.segment)
            heads = Heads(*(x[:, :, part] for x in whole))
            before = DocumentCount(state.seen, state.document)
            places = count_documents(names_BT[:, part], before)
            piece = LocalPiece(heads, positions_BT[:, part], places, context.segments is not None)
            out, kept = attend_segment(piece, LocalKeys(*state[:3]), before, layer.attention_spec(), self.segment)
            outs, state = [*outs, out], SegmentState(*kept, *places.after)
        return layer.merge_heads(torch.cat(outs, 2)), state

    def count_flops(self, tokens: int) -> float:
        """4 · D · H per seen key."""
        keys = mean_visible_keys(tokens, chunk=self.segment)
        scores = self.attention.layer_positions.scores
        beside = 0.0 if scores is None else scores.count_flops(keys)
        return 4 * self.attention.heads * self.attention.head_dim * keys + beside
