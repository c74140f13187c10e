"""Learned numbers of a left-spin gate."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aptlab.nn.smooth.rule import SpinRule
from aptlab.ops.measure import upcast_to_float32


class LearnedAngle(nn.Module):
    """alpha = softplus(a) > 0 and tau = sigmoid(t) in (0, 1) of one site, [1] each, in float32; no weight decay."""

    def __init__(self, rule: SpinRule) -> None:
        super().__init__()
        self.a, self.t = nn.Parameter(torch.empty(1)), nn.Parameter(torch.empty(1))
        self.reset(rule)

    def reset(self, rule: SpinRule) -> None:
        """Start from the rule's alpha and tau."""
        nn.init.constant_(self.a, rule.alpha + math.log(-math.expm1(-rule.alpha)))
        nn.init.constant_(self.t, math.log(rule.knee / (1 - rule.knee)))

    def forward(self) -> tuple[Tensor, Tensor]:
        """alpha and tau."""
        return F.softplus(upcast_to_float32(self.a)), upcast_to_float32(self.t).sigmoid()
