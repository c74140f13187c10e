"""Attention whose logits are capped, which no fused kernel of `scaled_dot_product_attention` computes.

Legend: B batch, H query heads, K key/value heads, G = H / K, T queries, S keys, D head dim.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from aptlab.nn.attention.spec import AttentionSpec, Heads

ROWS = 1024  # queries whose logits are in memory at once


def cap_logits(logits: Tensor, softcap: float) -> Tensor:
    """softcap · tanh(logits / softcap) (Gemma 2, arXiv:2408.00118)."""
    return softcap * torch.tanh(logits / softcap)


def attend_capped(heads: Heads, spec: AttentionSpec, mask: Any = None, *, causal: bool = False) -> Tensor:
    """softmax(cap(scale · q·k) + mask) v, [B, H, T, D], some rows of queries at a time; logits in float32.

    mask    bool, True = seen, or what is added to the logits; [B or 1, H or 1, T, S]
    causal  queries see the keys up to their own, the first query the first key
    """
    tokens, keys = heads.q.shape[2], heads.k.shape[2]
    parts = []
    for begin in range(0, tokens, ROWS):
        rows = slice(begin, min(begin + ROWS, tokens))
        if causal:
            device = heads.q.device
            own = torch.arange(rows.start, rows.stop, device=device).unsqueeze(1)
            seen = torch.arange(keys, device=device) <= own
        else:
            seen = None if mask is None else mask[..., rows, :]
        parts.append(attend_rows(Heads(heads.q[:, :, rows], heads.k, heads.v), spec, seen))
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)


def attend_rows(heads: Heads, spec: AttentionSpec, mask: Tensor | None) -> Tensor:
    """The same for rows that fit into memory."""
    assert spec.softcap is not None
    groups = heads.k.shape[1]
    q_BKGTD = heads.q.unflatten(1, (groups, -1))
    logits_BHTS = (q_BKGTD @ heads.k.unsqueeze(2).mT * spec.scale).flatten(1, 2)
    logits_BHTS = cap_logits(logits_BHTS.to(torch.promote_types(logits_BHTS.dtype, torch.float32)), spec.softcap)
    if mask is not None:
        hidden = mask.dtype == torch.bool
        logits_BHTS = logits_BHTS.masked_fill(~mask, -torch.inf) if hidden else logits_BHTS + mask
    weights_BHTS = logits_BHTS.softmax(-1)
    weights_BHTS = F.dropout(weights_BHTS, spec.dropout) if spec.dropout else weights_BHTS
    weights = weights_BHTS.to(heads.v.dtype).unflatten(1, (groups, -1))
    return (weights @ heads.v.unsqueeze(2)).flatten(1, 2)
