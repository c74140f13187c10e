"""softmax(q·k) v in the cheapest way that the keys seen by a layer allow.

Legend: B batch, H query heads, K key/value heads, T new tokens, S keys, D head dim, W block, N blocks.
Blocks of a chunked or sliding layer are folded into the batch, so that cost grows with T and not with T².
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.bias import causal_lower_right

from aptlab.errors import AptlabError
from aptlab.nn.attention.capped import attend_capped
from aptlab.nn.attention.flex import attend_flex, attend_split_keys, can_use_flex, needs_split_keys
from aptlab.nn.attention.spec import AttentionSpec, Heads
from aptlab.nn.context import ForwardContext
from aptlab.ops.rotary import join_pairs

BLOCK = 1024  # queries that share the centre of a decay


def compute_attention(heads: Heads, context: ForwardContext, spec: AttentionSpec) -> Tensor:
    """Attention of the new tokens, [B, H, T, D]."""
    if spec.softcap is not None and can_use_flex(heads, context, spec):
        return attend_flex(heads, context, spec)
    if spec.plain and context.simple:
        if context.tokens == 1:
            seen = slice_visible_keys(heads, context, spec)
            split = spec.softcap is None and needs_split_keys(seen)
            return attend_split_keys(seen, spec) if split else attend_single_query(seen, spec)
        if can_fold(context, spec.chunk) and context.past % (spec.chunk or 1) == 0:
            return attend_in_chunks(heads, context, spec)
        if can_fold(context, spec.window) and context.past == 0:
            return attend_in_windows(heads, spec)
        whole = spec.chunk is None and spec.window is None and spec.softcap is None
        if whole and context.past and heads.q.is_cuda:
            return attend_sdpa(heads, spec, causal_lower_right(context.tokens, context.end))
    if can_use_flex(heads, context, spec):
        return attend_flex(heads, context, spec)
    mask = context.mask(chunk=spec.chunk, window=spec.window, dense=not spec.plain)
    mask = mask if mask is None else mask[..., -heads.k.shape[2] :]
    if spec.decay is not None:
        assert mask is not None
        return attend_with_decay(heads, context, spec, mask)
    return attend_sdpa(heads, spec, add_score_bias(heads, context, spec, mask), causal=mask is None and context.causal)


def can_fold(context: ForwardContext, size: int | None) -> bool:
    """Whether blocks of `size` tokens are smaller than the pass; an exported graph, for any length, takes masks."""
    return size is not None and not torch.compiler.is_exporting() and size < context.tokens


def attend_sdpa(heads: Heads, spec: AttentionSpec, mask: Any = None, *, causal: bool = False) -> Tensor:
    """PyTorch's kernels; without a mask every query sees every key, or those before it if `causal`."""
    if spec.sinks is not None:
        heads, mask = append_sinks(heads, mask, spec.sinks)
    if spec.softcap is not None:
        return attend_capped(heads, spec, mask, causal=causal and heads.q.shape[2] > 1)
    return F.scaled_dot_product_attention(
        *heads,
        attn_mask=mask,
        dropout_p=spec.dropout,
        is_causal=causal and bool(heads.q.shape[2] > 1),  # a traced length gives no plain bool
        scale=spec.scale,
        enable_gqa=heads.q.shape[1] != heads.k.shape[1],
    )


def attend_single_query(heads: Heads, spec: AttentionSpec) -> Tensor:
    """Attention of single queries, not by cuDNN, whose plans cost 48 ms each (findings/cudnn_plan_per_key_count.sh)."""
    if not heads.q.is_cuda:
        return attend_sdpa(heads, spec)
    with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]):
        return attend_sdpa(heads, spec)


def slice_visible_keys(heads: Heads, context: ForwardContext, spec: AttentionSpec) -> Heads:
    """The keys that a single new token sees."""
    seen = heads.k.shape[2]
    if spec.chunk is not None:
        seen = min(seen, context.past % spec.chunk + 1)
    if spec.window is not None:
        seen = min(seen, spec.window)
    return Heads(heads.q, heads.k[:, :, -seen:], heads.v[:, :, -seen:])


def attend_in_chunks(heads: Heads, context: ForwardContext, spec: AttentionSpec) -> Tensor:
    """Causal attention inside blocks; the new tokens begin at the edge of one."""
    size, tokens = spec.chunk or 1, context.tokens
    new = (heads.q, heads.k[:, :, -tokens:], heads.v[:, :, -tokens:])
    whole = tokens - tokens % size
    parts = [
        unfold_blocks(
            attend_sdpa(Heads(*(fold_blocks(x[:, :, :whole], size) for x in new)), spec, causal=True), heads.q.shape[0]
        )
    ]
    if whole < tokens:
        parts.append(attend_sdpa(Heads(*(x[:, :, whole:] for x in new)), spec, causal=True))
    return torch.cat(parts, dim=2)


def attend_in_windows(heads: Heads, spec: AttentionSpec) -> Tensor:
    """Blocks of W queries, each with the keys of its own and the block before it."""
    size, tokens = spec.window or 1, heads.q.shape[2]
    pad = -tokens % size
    q = fold_blocks(F.pad(heads.q, (0, 0, 0, pad)), size)
    k, v = (fold_block_pairs(F.pad(x, (0, 0, size, pad)), size) for x in (heads.k, heads.v))
    query, key = torch.arange(size, device=q.device).unsqueeze(1), torch.arange(2 * size, device=q.device)
    near_WS = (key > query) & (key <= query + size)
    first = near_WS & (key >= size)  # the first block has only padding before it
    blocks = q.shape[0] // heads.q.shape[0]
    mask = torch.stack([first, *[near_WS] * (blocks - 1)]).repeat(heads.q.shape[0], 1, 1).unsqueeze(1)
    return unfold_blocks(attend_sdpa(Heads(q, k, v), spec, mask), heads.q.shape[0])[:, :, :tokens]


def fold_blocks(x_BHTD: Tensor, size: int) -> Tensor:
    """[B, H, N·W, D] -> [B·N, H, W, D]."""
    return x_BHTD.unflatten(2, (-1, size)).transpose(1, 2).flatten(0, 1)


def fold_block_pairs(x_BHSD: Tensor, size: int) -> Tensor:
    """[B, H, (N + 1)·W, D] -> [B·N, H, 2W, D], each block with the one before it."""
    return x_BHSD.unfold(2, 2 * size, size).transpose(-1, -2).transpose(1, 2).flatten(0, 1)


def unfold_blocks(x: Tensor, batch: int) -> Tensor:
    """The inverse of `fold_blocks`."""
    return x.unflatten(0, (batch, -1)).transpose(1, 2).flatten(2, 3)


def add_score_bias(heads: Heads, context: ForwardContext, spec: AttentionSpec, mask: Tensor | None) -> Tensor | None:
    """The mask with the scores' bias in it, where there is one."""
    if spec.scores is None or mask is None:
        return mask
    if spec.scores.contextual:
        k = heads.k.repeat_interleave(heads.q.shape[1] // heads.k.shape[1], dim=1)
        bias = spec.scores(heads.q, k, mask)
    else:
        bias = spec.scores(context.positions_BT, context.keys[:, -heads.k.shape[2] :])
    return bias.masked_fill(~mask, -torch.inf).to(heads.q.dtype)


def append_sinks(heads: Heads, mask: Tensor | None, sinks_H: Tensor) -> tuple[Heads, Tensor]:
    """One more key per head, whose logit is the sink's and whose value is zero."""
    assert mask is not None
    batch, count, tokens, _ = heads.q.shape
    if mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=heads.q.dtype).masked_fill(~mask, -torch.inf)
    sinks = sinks_H.to(heads.q.dtype).view(1, -1, 1, 1).expand(batch, count, tokens, 1)
    mask = torch.cat((mask.expand(batch, count, -1, -1), sinks), dim=-1)
    return Heads(heads.q, F.pad(heads.k, (0, 0, 0, 1)), F.pad(heads.v, (0, 0, 0, 1))), mask


def attend_with_decay(heads: Heads, context: ForwardContext, spec: AttentionSpec, mask: Tensor) -> Tensor:
    """Logits times decay^distance, per pair (xPos, Sun et al. 2022, arXiv:2212.10554).

    Queries are scaled up and keys down around the last position of each block of queries: no factor overflows at
    any length, and keys that are too far underflow to zero. Published code centres on the whole sequence and
    overflows beyond 72,000 tokens.
    """
    assert spec.decay is not None
    if not context.causal:
        raise AptlabError(
            "a rope that decays with distance looks at earlier tokens only, and this pass is not "
            "causal; use another rope"
        )
    rates, layout = spec.decay
    log_P = torch.tensor([math.log(rate) for rate in rates], dtype=torch.float32, device=heads.q.device)
    queries, keys = select_distance_positions(context, heads.k.shape[2])
    block = BLOCK if context.counted or context.segments is not None else 1  # given positions may lie anywhere
    parts = []
    for begin in range(0, context.tokens, block):
        rows = slice(begin, begin + block)
        centre = queries[:, rows].amax(-1, keepdim=True)
        up = scale_pairs(heads.q[:, :, rows], queries[:, rows] - centre, log_P, layout)
        down = scale_pairs(heads.k, (centre - keys).clamp_min(0), log_P, layout)
        parts.append(
            attend_sdpa(
                Heads(up, down, heads.v),
                spec,
                add_score_bias(slice_query_rows(heads, rows), context, spec, mask[:, :, rows]),
            )
        )
    return torch.cat(parts, dim=2)


def slice_query_rows(heads: Heads, rows: slice) -> Heads:
    """The same keys with some of the queries, `rows` of T."""
    return Heads(heads.q[:, :, rows], heads.k, heads.v)


def select_distance_positions(context: ForwardContext, keys: int) -> tuple[Tensor, Tensor]:
    """Places of queries and keys by which distances count: positions, or the order where documents restart them."""
    if context.segments is None:
        return context.positions_BT, context.keys[:, -keys:]
    order = torch.arange(context.end, device=context.positions_BT.device).unsqueeze(0)
    return order[:, context.past :], order[:, -keys:]


def scale_pairs(x: Tensor, exponents_BT: Tensor, log_P: Tensor, layout: str) -> Tensor:
    """x with pair i of every token multiplied by exp(exponent · log_i).

    float32 is enough: a factor f is off by some f |ln f| 2^-24, so what has a large error has faded.
    """
    factor = torch.exp(exponents_BT[:, None, :, None] * log_P)
    return (x * join_pairs(factor, factor, layout)).to(x.dtype)
