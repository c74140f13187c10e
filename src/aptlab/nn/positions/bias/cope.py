"""Positions that a query counts by what it reads. Legend: B batch, H heads, T queries, S keys, D head dim, N rows."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from aptlab.limits import PositiveInt
from aptlab.nn.positions.bias.base import PositionBias
from aptlab.ops.measure import upcast_to_float32


class CoPE(PositionBias):
    """Contextual position encoding (Golovneva et al. 2024, arXiv:2405.18719, eq. 3-5 and the code of its appendix).

        gate(m, n) = sigmoid(q_m·k_n / sqrt(D))
        position(m, n) = min(sum of gate(m, l) over the seen keys l = n .. m, max_pos - 1)
        added(m, n) = q_m·e[position(m, n)]      e learned [max_pos, D], linear between whole positions

    Every layer has its own e, which its heads share. A position counts from the query backwards, so nothing depends on
    where the text begins. Keys that a query may not see have gate 0. The equation writes q·k without the root; the
    authors' code has it in the gates and not in q·e, and so has this. It needs the whole [T, S]: no FlexAttention.
    Float32 inside and out (float64 stays).
    """

    shared: ClassVar[bool] = False
    contextual: ClassVar[bool] = True

    def __init__(self, *, heads: int, head_dim: int, layer: int, max_pos: PositiveInt = 16) -> None:
        super().__init__()
        self.heads, self.layer, self.max_pos = heads, layer, max_pos
        self.embed = nn.Embedding(max_pos, head_dim)
        nn.init.normal_(self.embed.weight, std=0.02)

    def forward(self, q_BHTD: Tensor, k_BHSD: Tensor, allowed_B1TS: Tensor) -> Tensor:
        """What is added to the scores, [B, H, T, S]; `allowed` says which keys each query sees."""
        with torch.autocast(q_BHTD.device.type, enabled=False):
            q, k = upcast_to_float32(q_BHTD), upcast_to_float32(k_BHSD)
            gates_BHTS = (q @ k.mT / math.sqrt(q.shape[-1])).sigmoid().masked_fill(~allowed_B1TS, 0.0)
            position = gates_BHTS.flip(-1).cumsum(-1).flip(-1).clamp_max(self.max_pos - 1)
            low = position.detach().long()
            rows_BHTN = q @ self.embed.weight.to(q.dtype).T
            below = rows_BHTN.gather(-1, low)
            above = rows_BHTN.gather(-1, (low + 1).clamp_max(self.max_pos - 1))
            return torch.lerp(below, above, position - low)

    def count_flops(self, keys: float) -> float:
        """FLOPs per token beside the scores, for `keys` seen keys: gates (q·k) and the rows of e (q·e)."""
        return 2 * self.heads * self.embed.embedding_dim * (keys + self.max_pos)

    def extra_repr(self) -> str:
        """Options, for printing."""
        return f"heads={self.heads}, max_pos={self.max_pos}"
