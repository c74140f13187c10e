"""A feed-forward with two experts and a router. Legend: B batch, T tokens, C dim, E experts."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from aptlab.nn.context import ForwardContext
from aptlab.nn.ffn import FeedForward, SwiGLU
from aptlab.nn.shape import Shape


class Routed(FeedForward):
    """sum_e p_e(x) · expert_e(x), p = softmax(router(x)); the balance loss is E · sum_e mean(p_e)² (1 when even)."""

    def __init__(self, shape: Shape, *, layer: int, experts: int = 2) -> None:
        super().__init__()
        self.layer = layer
        self.router = nn.Linear(shape.dim, experts)
        self.experts = nn.ModuleList(SwiGLU(shape, layer=layer) for _ in range(experts))

    def reset_parameters(self, std: float, depth: int) -> None:
        """The router starts even and still; experts start as they always do."""
        nn.init.zeros_(self.router.weight)
        nn.init.zeros_(self.router.bias)
        for expert in self.experts:
            expert.reset_parameters(std, depth)  # type: ignore[operator]

    def forward(self, x_BTC: Tensor, context: ForwardContext) -> Tensor:
        """The weighted sum, [B, T, C]."""
        share_BTE = self.router(x_BTC).softmax(-1)
        context.set_aux("balance", len(self.experts) * share_BTE.float().mean((0, 1)).square().sum())
        outs = torch.stack([expert(x_BTC, context) for expert in self.experts], dim=-1)
        return (outs * share_BTE.unsqueeze(2)).sum(-1)
