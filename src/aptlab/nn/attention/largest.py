"""The largest logit of each head, which no fused kernel tells.

Legend: B batch, H query heads, K key/value heads, T queries, S keys, D head dim.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aptlab.nn.attention.spec import AttentionSpec, Heads
from aptlab.nn.context import ForwardContext

MAX_LOGITS = "max_logits"  # name of the statistic in a trace
ROWS = 1024  # queries whose logits are in memory at once


@torch.no_grad()
def measure_max_logits(heads: Heads, context: ForwardContext, spec: AttentionSpec) -> Tensor:
    """max over seen pairs of scale · q·k of each head, float32 [H]; -inf where nothing is seen.

    Before a soft cap, a bias of positions or a decay. Time grows with T · S, as for attention without a fused kernel.
    """
    mask = context.mask(chunk=spec.chunk, window=spec.window, dense=True)
    assert mask is not None
    mask = mask[..., -heads.k.shape[2] :]
    groups, largest_H = heads.k.shape[1], heads.q.new_full((heads.q.shape[1],), -torch.inf, dtype=torch.float32)
    for begin in range(0, heads.q.shape[2], ROWS):
        rows = slice(begin, begin + ROWS)
        q_BKGTD = heads.q[:, :, rows].unflatten(1, (groups, -1))
        logits_BHTS = (q_BKGTD @ heads.k.unsqueeze(2).mT).flatten(1, 2).float() * spec.scale
        seen_BHTS = logits_BHTS.masked_fill(~mask[..., rows, :], -torch.inf)
        largest_H = torch.maximum(largest_H, seen_BHTS.amax((0, 2, 3)))
    return largest_H
