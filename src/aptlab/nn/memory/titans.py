"""Layers with a memory that learns while it reads: as a gate (MAG) and as a context (MAC).

Legend: B rows, T tokens, H query heads, K key/value heads, W tokens of a segment, P persistent tokens, D head dim,
E hidden units of the memory, C dim.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aptlab.errors import ConfigError
from aptlab.limits import NonNegativeInt, Positive, PositiveInt
from aptlab.nn.attention.base import Attention
from aptlab.nn.attention.dispatch import attend_sdpa
from aptlab.nn.attention.rotation import rotate_queries_keys
from aptlab.nn.attention.spec import Heads
from aptlab.nn.context import ForwardContext
from aptlab.nn.init import draw_weights
from aptlab.nn.memory.base import Memory, check_rotation
from aptlab.nn.memory.blocks import BlockPlaces, find_blocks
from aptlab.nn.memory.learner import Learner, StartWeights, choose_learner, is_idle, learn_first, learn_later
from aptlab.nn.memory.mlp import MemoryInputs, read_mlp
from aptlab.nn.memory.ring import (
    LocalKeys,
    keep_local,
    read_names,
    see_keys,
    start_count,
    start_local,
    view_keys,
)
from aptlab.nn.memory.segment import SegmentMemory
from aptlab.nn.norm import RMSNorm
from aptlab.nn.positions.layer import LayerPositions
from aptlab.nn.segments import DocumentCount, count_documents
from aptlab.nn.shape import Shape
from aptlab.nn.window import mean_visible_keys
from aptlab.ops.measure import upcast_to_float32

FORGET, MOMENTUM, STEP = -7.0, 0.0, 0.0  # biases at the start: a half-life of 760 tokens, and half of the rest


class TitansState(NamedTuple):
    """Local keys as in `LocalKeys` (MAC: those of what was read beside them, [B, 2K, W, D]), and the memory.

    reference  weights at the start of the chunk that the row is in    now  those at present    push  their surprise
    """

    keys: Tensor
    values: Tensor
    positions: Tensor
    reference_first: Tensor
    reference_second: Tensor
    now_first: Tensor
    now_second: Tensor
    push_first: Tensor
    push_second: Tensor
    seen: Tensor
    document: Tensor


class TitansMemory(Memory, abc.ABC):
    """What both layers share: the memory's projections, persistent tokens, and pieces of one chunk.

    Keys, queries and values of the memory are silu of a projection, keys and queries of length 1; alpha, eta and
    theta / `max_step` are sigmoids of another (Behrouz et al. 2025, arXiv:2501.00663, section 4.4). Left out of the
    paper's layer: the short convolutions after the projections. Persistent tokens (section 3.3) are not rotated.

    segment   tokens of the attention's window or segment, counted from the document's first, however passes cut it
    chunk     tokens whose gradients are taken at the same weights; divides segment
    persist   learned tokens that every token sees
    expand    hidden units of the memory in units of the head's width
    max_step  largest step of the memory's gradient descent
    """

    twice: int = 1  # kinds of local keys

    def __init__(
        self,
        attention: Attention,
        shape: Shape,
        *,
        layer: int,
        segment: PositiveInt = 128,
        chunk: PositiveInt = 64,
        persist: NonNegativeInt = 4,
        expand: PositiveInt = 4,
        max_step: Positive = 0.01,
        layers: Sequence[int] | None = None,
    ) -> None:
        super().__init__(attention, shape, layer=layer, layers=layers)
        if segment % chunk:
            raise ConfigError(f"chunk={chunk} does not divide segment={segment} of memory={self.option}")
        self.segment, self.chunk, self.persist, self.max_step = segment, chunk, persist, max_step
        self.heads, _, self.head_dim = shape.head_sizes()
        width = self.heads * self.head_dim
        self.project = nn.Linear(shape.dim, 3 * width, bias=False)
        self.rates = nn.Linear(shape.dim, 3 * self.heads)
        self.join = nn.Linear(width, shape.dim, bias=False)
        self.norm = RMSNorm(shape.dim)
        self.start = StartWeights(self.heads, self.head_dim, expand * self.head_dim)
        self.persistent = nn.Embedding(persist, shape.dim) if persist else None

    def build_other(self, shape: Shape) -> Memory:
        """Attention within the same segments."""
        return SegmentMemory(self.attention, shape, layer=self.layer, segment=self.segment)

    def check_conflicts(self, positions: LayerPositions) -> None:
        """As for other tiers, and a bias of positions: persistent tokens have none."""
        check_rotation(self.option, positions, self.attention.head_dim)
        if positions.scores is not None:
            raise ConfigError(
                f"memory={self.option} has tokens without a position, which bias="
                f"{type(positions.scores).__name__} could not place; use bias=none"
            )

    def init_state(
        self, rows: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> TitansState:
        """Zeros."""
        return self._start(rows, self.segment, torch.zeros((), dtype=dtype, device=device))

    def _start(self, rows: int, kept: int, like: Tensor) -> TitansState:
        local = start_local(rows, self.twice * self.attention.kv_heads, kept, self.head_dim, like)
        wide = upcast_to_float32(like)
        first, second = (wide.new_zeros(rows, *x.shape) for x in (self.start.first, self.start.second))
        return TitansState(*local, first, second, first, second, first, second, *start_count(rows, like.device))

    def mix_segment(
        self, x_BTC: Tensor, state: TitansState | None, context: ForwardContext
    ) -> tuple[Tensor, TitansState]:
        """Chunks of the pass in turn."""
        rows, names_BT = len(x_BTC), read_names(context, len(x_BTC))
        state = self._start(rows, 0, x_BTC[:1]) if state is None else TitansState(*state)
        count_documents(names_BT, DocumentCount(state.seen, state.document))  # that each document is in one piece
        positions, outs = context.positions.expand(rows, *context.positions.shape[1:]), []
        for begin in range(0, context.tokens, self.chunk):
            part = slice(begin, begin + self.chunk)
            x, names = x_BTC[:, part], names_BT[:, part]
            piece = ForwardContext(
                x.shape[1],
                positions=positions[:, part],
                segments=None if context.segments is None else names,
                device=x.device,
            )
            blocks = find_blocks(names, DocumentCount(state.seen, state.document), self.chunk)
            out, state = self.mix_piece(x, state, piece, blocks)
            outs.append(out)
        return torch.cat(outs, 1), state

    @abc.abstractmethod
    def mix_piece(
        self, x_BTC: Tensor, state: TitansState, piece: ForwardContext, blocks: BlockPlaces
    ) -> tuple[Tensor, TitansState]:
        """What the layer gives for a chunk's worth of tokens, [B, T, C], and the state after them."""

    def project_inputs(self, x_BTC: Tensor) -> MemoryInputs:
        """Keys, values, queries and rates of the memory."""
        heads = self.project(x_BTC).unflatten(-1, (3 * self.heads, -1)).transpose(1, 2)
        rates = self.rates(x_BTC).unflatten(-1, (3, -1)).permute(2, 0, 3, 1)
        with torch.autocast(x_BTC.device.type, enabled=False):
            q, k, v = F.silu(upcast_to_float32(heads)).chunk(3, dim=1)
            forget, momentum, step = upcast_to_float32(rates)
            q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
            return MemoryInputs(
                k, v, q, F.logsigmoid(-forget), F.logsigmoid(momentum), self.max_step * torch.sigmoid(step)
            )

    def join_heads(self, out_BHTD: Tensor, like: Tensor) -> Tensor:
        """What was read, as tokens of the stream's width, normalised; [B, T, C]."""
        return self.norm(self.join(out_BHTD.to(like.dtype).transpose(1, 2).flatten(2)))

    def attend(
        self, heads: list[Heads], kept: LocalKeys, state: TitansState, piece: ForwardContext, blocks: BlockPlaces
    ) -> tuple[Tensor, LocalKeys]:
        """Attention [B, T, C] of the first heads' queries to persistent tokens and to the keys of all heads."""
        layer, rows = self.attention, len(kept.keys)
        q, tokens = heads[0].q, heads[0].q.shape[2]
        k, v = (torch.cat([one[i].to(q.dtype) for one in heads], 1) for i in (1, 2))
        new = LocalKeys(k, v, piece.positions_BT.expand(rows, -1))
        before = DocumentCount(state.seen, state.document)
        reach = {"block": self.segment} if self.twice == 2 else {"window": self.segment}
        mask = see_keys(blocks.places, view_keys(blocks.places, before, kept.keys.shape[2]), **reach)
        # [B, twice · K, S, D] -> [B, K, twice · S, D]
        k, v = (
            torch.cat(torch.cat((old.to(q.dtype), x), 2).chunk(self.twice, 1), 2)
            for old, x in zip(kept[:2], new[:2], strict=True)
        )
        mask = torch.cat([mask] * self.twice, -1)
        if self.persistent is not None:
            p_k, p_v = (x.to(q.dtype).expand(rows, -1, -1, -1) for x in self._split_persistent())
            k, v, mask = torch.cat((p_k, k), 2), torch.cat((p_v, v), 2), F.pad(mask, (self.persist, 0), value=True)
        out = attend_sdpa(Heads(q, k, v), layer.attention_spec(), mask.expand(rows, -1, tokens, -1))
        real = None if piece.segments is None else blocks.places.real
        return layer.merge_heads(out), keep_local(kept, new, self.segment, real)

    def _split_persistent(self) -> tuple[Tensor, Tensor]:
        """Keys and values of the persistent tokens, [1, K, P, D]."""
        layer = self.attention
        assert self.persistent is not None
        heads = layer.split_heads(self.persistent.weight.unsqueeze(0))
        qk, v = heads.split([layer.heads + layer.kv_heads, layer.kv_heads], 1)
        return layer.normalize_qk(qk)[:, layer.heads :], v

    def split_tokens(self, x_BTC: Tensor, piece: ForwardContext) -> Heads:
        """Rotated queries and keys, and values, of tokens at the piece's positions."""
        layer = self.attention
        qk, v = layer.split_heads(x_BTC).split([layer.heads + layer.kv_heads, layer.kv_heads], dim=1)
        q, k = rotate_queries_keys(layer, qk, piece)
        return Heads(q, k, v)

    def count_flops(self, tokens: int) -> float:
        """4 · D · H per seen key; per head and token 22 · D · E for the memory, and 2 (D + E) per token of its chunk.

        22 D E: M_0 and S_0 are read by the query (8), M(k) and its gradient (6), and both are carried on (8).
        """
        layer, hidden = self.attention, self.start.first.shape[1]
        limit = {"chunk": self.segment} if self.twice == 2 else {"window": self.segment}
        keys = self.twice * mean_visible_keys(tokens, **limit) + self.persist
        chunk = 4 * (self.head_dim + hidden) * mean_visible_keys(tokens, chunk=self.chunk)
        return 4 * layer.heads * self.head_dim * keys + self.heads * (22 * self.head_dim * hidden + chunk)

    def reset_memory(self, std: float) -> None:
        """Projections N(0, std), rates as at the start."""
        for matrix in (self.project, self.rates, self.join):
            draw_weights(matrix, std)
        with torch.no_grad():
            self.rates.bias.copy_(torch.tensor([FORGET, MOMENTUM, STEP]).repeat_interleave(self.heads))
        if self.persistent is not None:
            draw_weights(self.persistent, std)
        self.start.reset()

    def extra_repr(self) -> str:
        """Sizes, for printing."""
        return f"segment={self.segment}, chunk={self.chunk}, persist={self.persist}"


class TitansGateMemory(TitansMemory):
    """Memory as a gate: o = y · sigmoid(norm(M_t(x))), y = attention within a window (Titans MAG, eq. 26-28).

    arXiv:2501.00663, section 4.2. Every token reads the memory after it was learned from.
    """

    option = "titans_mag"

    def mix_piece(
        self, x_BTC: Tensor, state: TitansState, piece: ForwardContext, blocks: BlockPlaces
    ) -> tuple[Tensor, TitansState]:
        """Attention and memory side by side."""
        y_BTC, kept = self.attend([self.split_tokens(x_BTC, piece)], LocalKeys(*state[:3]), state, piece, blocks)
        inputs, learner = self.project_inputs(x_BTC), Learner.read(state[3:9])
        out, opened, begun = learn_first(inputs, learner, self.start.learner(learner), blocks)
        closed = opened
        if not is_idle(blocks.later):
            later, closed = learn_later(inputs, opened, blocks)
            out = torch.where(blocks.later[:, None, :, None], later, out)
        learner = choose_learner(learner, opened, closed, begun, blocks)
        gate = torch.sigmoid(self.join_heads(out, y_BTC))
        return y_BTC * gate, TitansState(*kept, *learner.flat(), *blocks.places.after)


class TitansContextMemory(TitansMemory):
    """Memory as a context: attention to [persistent | h | segment], h = M(q) (Titans MAC, eq. 21-25).

        y = Attn([p | h | x]),  M_t = M_{t-1} after learning from y,  o = y · sigmoid(norm(M_t(y)))

    arXiv:2501.00663, section 4.1. A token sees the h of its own segment's earlier tokens and its own. h is read from
    the weights at the start of the token's chunk; with chunk = segment these are those of the segment before (eq. 21).
    """

    option = "titans_mac"
    twice = 2

    def mix_piece(
        self, x_BTC: Tensor, state: TitansState, piece: ForwardContext, blocks: BlockPlaces
    ) -> tuple[Tensor, TitansState]:
        """Read, attend, learn: first tokens of the open chunk and of new documents, then those of the next chunk."""
        learner, own, kept = Learner.read(state[3:9]), self.split_tokens(x_BTC, piece), LocalKeys(*state[:3])
        begin, q = self.start.learner(learner), self.project_inputs(x_BTC).q
        fresh, later = (mask[:, None, :, None] for mask in (blocks.fresh, blocks.later))
        with torch.autocast(x_BTC.device.type, enabled=False):
            h = torch.where(fresh, read_mlp(begin.reference, q), read_mlp(learner.reference, q))
        y_BTC, after = self._attend_read(h, own, kept, state, piece, blocks)
        out, opened, begun = learn_first(self.project_inputs(y_BTC), learner, begin, blocks)
        closed = opened
        if not is_idle(blocks.later):
            with torch.autocast(x_BTC.device.type, enabled=False):
                h = torch.where(later, read_mlp(opened.weights, q), h)
            next_BTC, after = self._attend_read(h, own, kept, state, piece, blocks)
            y_BTC = torch.where(blocks.later.unsqueeze(-1), next_BTC, y_BTC)
            learned, closed = learn_later(self.project_inputs(y_BTC), opened, blocks)
            out = torch.where(later, learned, out)
        gate = torch.sigmoid(self.join_heads(out, y_BTC))
        learner = choose_learner(learner, opened, closed, begun, blocks)
        return y_BTC * gate, TitansState(*after, *learner.flat(), *blocks.places.after)

    def _attend_read(
        self, h: Tensor, own: Heads, kept: LocalKeys, state: TitansState, piece: ForwardContext, blocks: BlockPlaces
    ) -> tuple[Tensor, LocalKeys]:
        """Attention to the tokens and to what was read for them."""
        read = self.split_tokens(self.join_heads(h, own.v), piece)
        return self.attend([own, read], kept, state, piece, blocks)
