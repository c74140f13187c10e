"""Attention with a score bias or a cap that never makes the matrix of all scores, on CUDA (FlexAttention).

Legend: B batch, H heads, T new tokens, S keys, D head dim.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from aptlab.nn.attention.spec import AttentionSpec, Heads
from aptlab.nn.context import ForwardContext

LEAST = 128  # tokens from which FlexAttention is taken: its blocks are that long
FAR = 32_768  # keys from which single queries are spread
PARTS = 128  # enough for every multiprocessor


@functools.cache
def compile_flex_attention() -> Callable[..., Any]:
    """FlexAttention is fast, and small in memory, only when compiled."""
    return torch.compile(flex_attention)


def needs_split_keys(heads: Heads) -> bool:
    """Whether one query meets so many keys that they are worth spreading over the whole device."""
    return heads.q.is_cuda and heads.k.shape[2] >= FAR


def attend_split_keys(heads: Heads, spec: AttentionSpec) -> Tensor:
    """Attention of single queries to all keys, the keys split into parts that run side by side (Flash-Decoding).

    PyTorch's fused kernel alone gives each head to one multiprocessor: 146 ms a token at ten million keys on an H200.
    """
    each = zip(*(x.split(1) for x in heads), strict=True)
    rows = [attend_row_in_parts(q, k, v, spec.scale) for q, k, v in each]
    return rows[0] if len(rows) == 1 else torch.cat(rows)


def attend_row_in_parts(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """One row of a batch: its keys are views of the cache, folded into a batch of parts."""
    size = k.shape[2] // PARTS
    whole = size * PARTS
    near_k, near_v = (x[:, :, :whole].unflatten(2, (PARTS, size))[0].transpose(0, 1) for x in (k, v))
    out, weight = attend_with_logsumexp(q.expand(PARTS, -1, -1, -1), near_k, near_v, scale)
    if whole < k.shape[2]:
        last, its_weight = attend_with_logsumexp(q, k[:, :, whole:], v[:, :, whole:], scale)
        out, weight = torch.cat((out, last)), torch.cat((weight, its_weight))
    share = weight.float().softmax(0).unsqueeze(-1)
    return (out.float() * share).sum(0, keepdim=True).to(q.dtype)


def attend_with_logsumexp(q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Attention, and the logarithm of each query's sum of exponentials [B, H, T]."""
    if q.dtype == torch.float32:
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
        out, sums, *_ = torch.ops.aten._scaled_dot_product_efficient_attention(q, k, v, None, True, scale=scale)
        return out, sums[..., : q.shape[2]]
    out, sums, *_ = torch.ops.aten._scaled_dot_product_flash_attention(q, k, v, scale=scale)
    return out, sums


def can_use_flex(heads: Heads, context: ForwardContext, spec: AttentionSpec) -> bool:
    """Whether this pass can go through FlexAttention: many tokens on CUDA, a bias of positions or a cap, no more."""
    if (spec.scores is None and spec.softcap is None) or spec.decay is not None or spec.sinks is not None:
        return False
    if spec.scores is not None and spec.scores.contextual:
        return False
    return heads.q.is_cuda and context.causal and context.tokens >= LEAST and not spec.dropout


def attend_flex(heads: Heads, context: ForwardContext, spec: AttentionSpec) -> Tensor:
    """softmax(cap(scale · q·k) + bias) v over the keys that a query sees; the same numbers as with dense logits."""
    keys = heads.k.shape[2]
    out = compile_flex_attention()(
        *heads,
        score_mod=build_score_mod(context, keys, spec),
        block_mask=build_block_mask(context, keys, spec.chunk, spec.window),
        scale=spec.scale,
        enable_gqa=heads.q.shape[1] != heads.k.shape[1],
    )
    assert isinstance(out, Tensor)
    return out


def build_score_mod(context: ForwardContext, keys: int, spec: AttentionSpec) -> Callable[..., Tensor]:
    """What becomes of each logit: the cap first, then the bias."""
    bias = None if spec.scores is None else spec.scores.score_mod(context.positions_BT, context.keys[:, -keys:])
    softcap = spec.softcap
    if softcap is None:
        assert bias is not None
        return bias

    def cap(score: Tensor, b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
        capped = softcap * torch.tanh(score / softcap)
        return capped if bias is None else bias(capped, b, h, q_idx, kv_idx)

    return cap


def build_block_mask(context: ForwardContext, keys: int, chunk: int | None, window: int | None) -> BlockMask:
    """Which blocks of keys each block of queries sees; the mask of `ForwardContext.mask`, never made whole."""
    first, past = context.end - keys, context.past
    positions, key_positions = context.positions_BT, context.keys
    segments, key_segments = context.segments, context.key_segments

    def row(x: Tensor, b: Tensor, index: Tensor) -> Tensor:
        return x[0][index] if x.shape[0] == 1 else x[b, index]

    def sees(b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
        query, key = q_idx + past, kv_idx + first
        seen = key <= query
        if window is not None:
            seen = seen & (key > query - window)
        if chunk is not None:
            seen = seen & (row(positions, b, q_idx) // chunk == row(key_positions, b, key) // chunk)
        if segments is not None and key_segments is not None:
            seen = seen & (row(segments, b, q_idx) == row(key_segments, b, key))
        return seen

    rows = None if segments is None and chunk is None else (positions if segments is None else segments).shape[0]
    return create_block_mask(sees, rows, None, context.tokens, keys, device=str(positions.device))
