"""One pre-norm block: attention and feed-forward, each joined to the stream by a smoothing rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from aptlab.nn.context import ForwardContext
from aptlab.nn.positions.layer import LayerPositions
from aptlab.nn.shape import Shape

Factory = Callable[..., nn.Module]


class Block(nn.Module):
    """x = smooth(x, attention(norm(x))), then x = smooth(x, ffn(norm(x))) (Xiong et al. 2020, arXiv:2002.04745).

    `carries` holds what each smoothing site hands to the same site of the next block; `traces` collects statistics.
    """

    def __init__(
        self,
        shape: Shape,
        *,
        layer: int,
        place: LayerPositions,
        attention: Factory,
        ffn: Factory,
        norm: Factory,
        smooth: Factory,
    ) -> None:
        super().__init__()
        self.layer = layer
        self.attention_norm = norm(shape.dim)
        self.attention = attention(shape, layer=layer, place=place)
        self.attention_smooth = smooth(shape.dim, layer=layer, site="attention")
        self.ffn_norm = norm(shape.dim)
        self.ffn = ffn(shape)
        self.ffn_smooth = smooth(shape.dim, layer=layer, site="ffn")

    def forward(
        self,
        x: Tensor,
        carries: tuple[Any, Any],
        step: ForwardContext,
        *,
        trace: bool = False,
    ) -> tuple[Tensor, tuple[Any, Any], tuple[Any, Any]]:
        delta = self.attention(self.attention_norm(x), step)
        x, carry_attention, trace_attention = self.attention_smooth(x, delta, carries[0], trace=trace)
        delta = self.ffn(self.ffn_norm(x))
        x, carry_ffn, trace_ffn = self.ffn_smooth(x, delta, carries[1], trace=trace)
        return x, (carry_attention, carry_ffn), (trace_attention, trace_ffn)
