"""A compressive memory of fixed size per head (Infini-attention).

Legend: B rows, T tokens, H query heads, K key/value heads, G = H/K, D head dim, E = D + 1,
W tokens of a segment, C dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from aptlab.errors import ConfigError, suggest_option
from aptlab.limits import Positive, PositiveInt
from aptlab.nn.attention.base import Attention
from aptlab.nn.attention.linear import apply_feature_map
from aptlab.nn.attention.rotation import rotate_queries_keys
from aptlab.nn.attention.spec import Heads
from aptlab.nn.context import ForwardContext
from aptlab.nn.memory.base import Memory, MemoryGate, check_rotation
from aptlab.nn.memory.blocks import BlockPlaces, choose_rows, find_blocks
from aptlab.nn.memory.ring import LocalKeys, LocalPiece, attend_segment, read_names, start_count, start_local
from aptlab.nn.memory.segment import SegmentMemory
from aptlab.nn.positions.layer import LayerPositions
from aptlab.nn.segments import DocumentCount, count_documents
from aptlab.nn.shape import Shape
from aptlab.nn.window import mean_visible_keys
from aptlab.ops.measure import upcast_to_float32

UPDATES = ("linear", "delta")


class InfiniState(NamedTuple):
    """What a row keeps: the memory, and the part of a segment that it is in.

    keys, values  rotated, [B, K, W, D], and positions [B, W] of the last tokens, the newest at the end
    memory        [B, K, D, E], M and beside it z, of the document's whole segments before the one that it is in
    following     [B, K, D, E], the same with the tokens of that segment: the memory of the next one
    """

    keys: Tensor
    values: Tensor
    positions: Tensor
    memory: Tensor
    following: Tensor
    seen: Tensor
    document: Tensor


class Piece(NamedTuple):
    """Part of a pass: rotated heads, features of the unrotated ones, positions and documents."""

    heads: Heads
    phi_q: Tensor
    phi_k: Tensor
    positions: Tensor
    names: Tensor


class InfiniMemory(Memory):
    """Local attention within a segment, and a linear memory of all segments before it, mixed by a gate per head.

        read    A_mem = phi(Q) M / (phi(Q) z),  phi = elu + 1                       (Munkhdalai et al. 2024, eq. 3)
        linear  M' = M + phi(K)^T V,            z' = z + sum phi(K)                  (eq. 4)
        delta   M' = M + phi(K)^T (V - phi(K) M / (phi(K) z))                        (eq. 5)
        out     A = sigmoid(beta) A_mem + (1 - sigmoid(beta)) A_dot                  (eq. 6)

    arXiv:2404.07143. Queries and keys are rotated for A_dot alone. M and z are float32 (float64 stays). A segment is
    `segment` tokens of a document, counted from its first, however passes cut it. Where nothing is remembered yet
    (z = 0) there is no read and A = A_dot; read as 0, as in some replications, a first segment would be scaled down.
    Heads that share keys share M.

    update          linear | delta
    gate_init       beta at the start; 0 = half of each
    gate_lr_scale   learning rate of beta in units of the model's; it takes no weight decay. A replication found that
                    gates do not move otherwise (huggingface.co/blog/infini-attention, 2024)
    """

    option = "infini"

    def __init__(
        self,
        attention: Attention,
        shape: Shape,
        *,
        layer: int,
        segment: PositiveInt = 512,
        update: Literal["linear", "delta"] = "linear",
        gate_init: float = 0.0,
        gate_lr_scale: Positive = 10.0,
        layers: Sequence[int] | None = None,
    ) -> None:
        if update not in UPDATES:
            raise ConfigError(f"update={update!r}{suggest_option(update, UPDATES)}")
        super().__init__(attention, shape, layer=layer, layers=layers)
        self.segment, self.update = segment, update
        self.gate = MemoryGate(shape.heads, init=gate_init, rate_scale=gate_lr_scale)

    def build_other(self, shape: Shape) -> Memory:
        """Attention within the same segments."""
        return SegmentMemory(self.attention, shape, layer=self.layer, segment=self.segment)

    def check_conflicts(self, positions: LayerPositions) -> None:
        """Rules that keep attention in blocks of their own, decay, or choose by the length of the text."""
        check_rotation(self.option, positions, self.attention.head_dim)

    def init_state(
        self, rows: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> InfiniState:
        """Zeros."""
        return self._start(rows, self.segment, torch.zeros((), dtype=dtype, device=device))

    def _start(self, rows: int, kept: int, like: Tensor) -> InfiniState:
        heads, dims = self.attention.kv_heads, self.attention.head_dim
        local, wide = start_local(rows, heads, kept, dims, like), upcast_to_float32(like)
        memory, following = (wide.new_zeros(rows, heads, dims, dims + 1) for _ in range(2))
        return InfiniState(*local, memory, following, *start_count(rows, like.device))

    def mix_segment(
        self, x_BTC: Tensor, state: InfiniState | None, context: ForwardContext
    ) -> tuple[Tensor, InfiniState]:
        """Segments of the pass in turn, each read against the memory of those before it."""
        layer, rows = self.attention, len(x_BTC)
        qk, v = layer.split_heads(x_BTC).split([layer.heads + layer.kv_heads, layer.kv_heads], dim=1)
        q, k = rotate_queries_keys(layer, qk, context)
        v = v.to(q.dtype)
        with torch.autocast(x_BTC.device.type, enabled=False):
            phi = apply_feature_map(upcast_to_float32(layer.normalize_qk(qk)))
        names_BT = read_names(context, rows)
        state = self._start(rows, 0, k[:1]) if state is None else InfiniState(*state)
        count_documents(names_BT, DocumentCount(state.seen, state.document))  # that each document is in one piece
        whole = (q, k, v, *phi.split([layer.heads, layer.kv_heads], dim=1))
        positions_BT, outs = context.positions_BT.expand(rows, -1), []
        for begin in range(0, context.tokens, self.segment):
            part = slice(begin, begin + self.segment)
            q, k, v, phi_q, phi_k = (x[:, :, part] for x in whole)
            piece = Piece(Heads(q, k, v), phi_q, phi_k, positions_BT[:, part], names_BT[:, part])
            out, state = self._mix_piece(piece, state, padded=context.segments is not None)
            outs.append(out)
        return layer.merge_heads(torch.cat(outs, 2).to(v.dtype)), state

    def _mix_piece(self, piece: Piece, state: InfiniState, *, padded: bool) -> tuple[Tensor, InfiniState]:
        """Local attention and reads [B, H, T, D], and the state after the piece."""
        before = DocumentCount(state.seen, state.document)
        blocks = find_blocks(piece.names, before, self.segment)
        part = LocalPiece(piece.heads, piece.positions, blocks.places, padded)
        spec = self.attention.attention_spec()
        local, kept = attend_segment(part, LocalKeys(*state[:3]), before, spec, self.segment)
        with torch.autocast(local.device.type, enabled=False):
            read, found, memory, following = self._remember(piece, blocks, state)
            out = self.gate(read, local, found)
        return out, InfiniState(*kept, memory, following, *blocks.places.after)

    def _remember(self, piece: Piece, blocks: BlockPlaces, state: InfiniState) -> tuple[Tensor, ...]:
        """What is read [B, H, T, D], where there was something [B, 1, T, 1], the memory and that which follows.

        The tokens of the open segment meet its memory; those of the next one meet what follows when the open one is
        whole; a document that begins in the piece has none.
        """
        v = upcast_to_float32(piece.heads.v)
        memory, following = (x.to(v.dtype) for x in (state.memory, state.following))
        grown = following + self._add(piece.phi_k, v, memory, blocks.open)
        later_B1T1 = blocks.later[:, None, :, None]
        read = torch.where(later_B1T1, read_memory(piece.phi_q, grown), read_memory(piece.phi_q, memory))
        empty = torch.zeros_like(memory)
        filled_B1 = (memory[..., -1] != 0).flatten(1).any(1, keepdim=True)
        found_BT = blocks.later | (blocks.open & filled_B1)
        base = choose_rows(blocks.goes_on & blocks.crossed, grown, empty)
        added = self._add(piece.phi_k, v, base, blocks.last)
        going = choose_rows(blocks.crossed, grown, memory), choose_rows(blocks.crossed, grown + added, grown)
        memory = choose_rows(blocks.goes_on, going[0], empty)
        following = choose_rows(blocks.goes_on, going[1], added)
        return read, found_BT[:, None, :, None], memory, following

    def _add(self, phi_k: Tensor, v: Tensor, memory: Tensor, mask_BT: Tensor) -> Tensor:
        """What the tokens of a mask add to a memory, [B, K, D, E]."""
        if self.update == "delta":
            v = v - read_memory(phi_k, memory)
        rows = torch.cat((v, torch.ones_like(v[..., :1])), -1) * mask_BT[:, None, :, None]
        return phi_k.mT @ rows

    def count_flops(self, tokens: int) -> float:
        """4 · D · H per seen key of the segment, 2 · D · E per head for a read and per key head for an update."""
        layer, dims = self.attention, self.attention.head_dim
        keys = mean_visible_keys(tokens, chunk=self.segment)
        scores: Any = layer.layer_positions.scores
        products = layer.heads + layer.kv_heads * (2 if self.update == "delta" else 1)
        beside = 0.0 if scores is None else scores.count_flops(keys)
        return 4 * layer.heads * dims * keys + 2 * products * dims * (dims + 1) + beside

    def reset_memory(self, std: float) -> None:
        """Gates as at the start."""
        self.gate.reset()

    def extra_repr(self) -> str:
        """Segment and update, for printing."""
        return f"segment={self.segment}, update={self.update}"


def read_memory(phi_BNTD: Tensor, memory_BKDE: Tensor) -> Tensor:
    """phi M / (phi z) of heads that share memories, [B, N, T, D]; 0 where z is 0."""
    groups = phi_BNTD.shape[1] // memory_BKDE.shape[1]
    out = phi_BNTD.unflatten(1, (-1, groups)) @ memory_BKDE.unsqueeze(2)
    above, below = out.flatten(1, 2).split([memory_BKDE.shape[-1] - 1, 1], -1)
    return above / torch.where(below > 0, below, 1.0)
