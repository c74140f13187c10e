"""Keys and values of the segment before (Transformer-XL).

Legend: B rows, T tokens of a pass, R = mem_len, K key/value heads, H query heads, D head dim, C dim.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from aptlab.limits import PositiveInt
from aptlab.nn.attention.base import Attention
from aptlab.nn.attention.dispatch import compute_attention
from aptlab.nn.attention.rotation import rotate_queries_keys
from aptlab.nn.attention.spec import Heads
from aptlab.nn.context import ForwardContext
from aptlab.nn.memory.base import Memory, check_rotation
from aptlab.nn.memory.ring import (
    LocalKeys,
    attend_keys,
    keep_local,
    read_names,
    see_keys,
    start_count,
    start_local,
    view_keys,
)
from aptlab.nn.positions.layer import LayerPositions
from aptlab.nn.segments import DocumentCount, count_documents
from aptlab.nn.shape import Shape
from aptlab.nn.window import mean_visible_keys


class XLState(NamedTuple):
    """Rotated keys and values [B, K, R, D] and positions [B, R] of the last tokens, the newest at the end."""

    keys: Tensor
    values: Tensor
    positions: Tensor
    seen: Tensor
    document: Tensor


class XLMemory(Memory):
    """Attention over [memory, segment], the memory being detached keys and values of the last `mem_len` tokens.

    Dai et al. 2019 (arXiv:1901.02860, section 3.2). They keep hidden states and project them anew, and add relative
    positions of their own; here keys and values themselves are kept, as in Wu et al. 2022 (arXiv:2203.08913), rotated
    by their position in the document, so that a rope sees true distances. A segment is one pass.

    same_length  every token sees `mem_len` keys, its own included (`--same_length` of the authors' code, for
                 evaluation); without, all of its segment before it and `mem_len` tokens before the segment
    """

    option = "xl"

    def __init__(
        self,
        attention: Attention,
        shape: Shape,
        *,
        layer: int,
        mem_len: PositiveInt = 512,
        same_length: bool = False,
    ) -> None:
        super().__init__(attention, shape, layer=layer)
        self.mem_len, self.same_length = mem_len, same_length

    def check_conflicts(self, positions: LayerPositions) -> None:
        """Rules that keep attention in blocks, decay, or choose by the length of the text."""
        check_rotation(self.option, positions, self.attention.head_dim)

    def init_state(self, rows: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> XLState:
        """Zeros."""
        return self._start(rows, self.mem_len, torch.zeros((), dtype=dtype, device=device))

    def _start(self, rows: int, kept: int, like: Tensor) -> XLState:
        local = start_local(rows, self.attention.kv_heads, kept, self.attention.head_dim, like)
        return XLState(*local, *start_count(rows, like.device))

    def mix_segment(self, x_BTC: Tensor, state: XLState | None, context: ForwardContext) -> tuple[Tensor, XLState]:
        """Attention over the memory and the segment."""
        layer, rows = self.attention, len(x_BTC)
        qk, v = layer.split_heads(x_BTC).split([layer.heads + layer.kv_heads, layer.kv_heads], dim=1)
        q, k = rotate_queries_keys(layer, qk, context)
        v = v.to(q.dtype)
        window, names_BT = self.mem_len if self.same_length else None, read_names(context, rows)
        spec, positions_BT = layer.attention_spec()._replace(window=window), context.positions_BT.expand(rows, -1)
        if state is None and (window is None or context.segments is None):  # there, padding is no distance
            before = start_count(rows, x_BTC.device)
            places = count_documents(names_BT, before)
            out = compute_attention(Heads(q, k, v), context, spec)
            kept = LocalKeys(k[:, :, :0], v[:, :, :0], positions_BT[:, :0])
        else:
            state = self._start(rows, 0, k[:1]) if state is None else XLState(*state)  # a loaded one is a plain tuple
            before = DocumentCount(state.seen, state.document)
            places = count_documents(names_BT, before)
            kept = LocalKeys(*state[:3])
            keys, values = (torch.cat((old.to(q.dtype), new), 2) for old, new in zip(kept, (k, v), strict=False))
            mask = see_keys(places, view_keys(places, before, kept.keys.shape[2]), window=window)
            key_positions = torch.cat((kept.positions, positions_BT), 1)
            out = attend_keys(Heads(q, keys, values), mask, spec, positions_BT, key_positions)
        real = None if context.segments is None else places.real
        last = keep_local(kept, LocalKeys(k.detach(), v.detach(), positions_BT), self.mem_len, real)
        return layer.merge_heads(out), XLState(*last, *places.after)

    def count_flops(self, tokens: int) -> float:
        """4 · D · H per seen key, in segments of `tokens` behind a full memory."""
        window = self.mem_len if self.same_length else None
        keys = self.mem_len if self.same_length else mean_visible_keys(tokens, window=window) + self.mem_len
        scores = self.attention.layer_positions.scores
        beside = 0.0 if scores is None else scores.count_flops(keys)
        return 4 * self.attention.heads * self.attention.head_dim * keys + beside

    def extra_repr(self) -> str:
        """Size, for printing."""
        return f"mem_len={self.mem_len}, same_length={self.same_length}"
