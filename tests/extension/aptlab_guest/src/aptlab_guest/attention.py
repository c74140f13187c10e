"""A mixer that keeps a state of fixed size. Legend: B batch, T tokens, C dim."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from aptlab.nn.attention import Attention
from aptlab.nn.context import ForwardContext
from aptlab.nn.shape import Shape


class FadingMean(Attention):
    """out_t = W · s_t / w_t with s_t = fade · s_(t-1) + x_t, and w_t the sum of the weights: a mean that forgets."""

    def __init__(self, shape: Shape, *, layer: int, fade: float = 0.9) -> None:
        super().__init__()
        self.layer, self.fade = layer, fade
        self.mix = nn.Linear(shape.dim, shape.dim, bias=False)

    @property
    def max_keys(self) -> int:
        """0: the state stands for earlier tokens."""
        return 0

    def count_flops(self, tokens: int) -> float:
        """Two per channel for the running sum."""
        return 2.0 * self.mix.in_features

    def output_matrices(self) -> tuple[nn.Linear, ...]:
        """The one matrix."""
        return (self.mix,)

    def forward(self, x_BTC: Tensor, context: ForwardContext) -> Tensor:
        """The running mean of each channel, mixed, [B, T, C]."""
        state = context.state
        total = x_BTC.new_zeros(x_BTC[:, 0].shape, dtype=torch.float32) if state is None else state[0]
        weight = 0.0 if state is None else state[1]
        means = []
        for x in x_BTC.float().unbind(1):
            total, weight = self.fade * total + x, self.fade * weight + 1.0
            means.append(total / weight)
        context.set_state((total, weight))
        return self.mix(torch.stack(means, dim=1).to(x_BTC.dtype))
