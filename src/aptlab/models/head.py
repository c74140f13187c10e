"""From the last states to logits. Legend: B batch, T tokens, C dim, V vocabulary."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aptlab.limits import Positive, validate_limits


@dataclass(frozen=True, kw_only=True)
class HeadRule:
    """Logits of the vocabulary: z = scale · (W x + b), and with a softcap z' = softcap · tanh(z / softcap).

    scale    as in Cohere's Command R, 1 = none
    softcap  as in Gemma 2 (arXiv:2408.00118), None = none
    bias     whether there is a b, as in Phi-2
    """

    scale: Positive = 1.0
    softcap: Positive | None = None
    bias: bool = False

    def __post_init__(self) -> None:
        validate_limits(self)


class VocabularyHead(nn.Linear):
    """The matrix [V, C] from states to logits, with what `rule` makes of them; a cap is computed in float32."""

    def __init__(self, dim: int, vocab: int, rule: HeadRule) -> None:
        super().__init__(dim, vocab, bias=rule.bias)
        self.rule = rule

    def forward(self, input: Tensor) -> Tensor:
        """Logits [B, T, V] of states [B, T, C]."""
        logits_BTV = F.linear(input, self.weight, self.bias)
        if self.rule.scale != 1:
            logits_BTV = logits_BTV * self.rule.scale
        if self.rule.softcap is None:
            return logits_BTV
        wide = logits_BTV.to(torch.promote_types(logits_BTV.dtype, torch.float32))
        return (self.rule.softcap * torch.tanh(wide / self.rule.softcap)).to(logits_BTV.dtype)
