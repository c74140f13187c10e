"""An encoder-decoder small enough for tests."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from aptlab.models import EncoderDecoder
from aptlab.nn.attention import CrossAttention, FullAttention
from aptlab.nn.block import Block, Site
from aptlab.nn.ffn import SwiGLU
from aptlab.nn.norm import RMSNorm
from aptlab.nn.positions import Positions
from aptlab.nn.positions.rope import Rope, Standard
from aptlab.nn.shape import Shape
from aptlab.nn.smooth import Plain

SHAPE = Shape(dim=16, depth=2, heads=4, kv_heads=2, head_dim=4, hidden=24)
VOCAB = 23


def make_pair_net(
    *,
    shape: Shape = SHAPE,
    vocab: int = VOCAB,
    rope: Rope | None = None,
    bias: Callable[..., nn.Module] | None = None,
    embed: Any = None,
    attention: Callable[..., nn.Module] = FullAttention,
    ffn: Callable[..., nn.Module] = SwiGLU,
    smooth: Callable[..., nn.Module] = Plain,
    cross: Callable[..., nn.Module] = CrossAttention,
    gain: float = 12.0,
) -> EncoderDecoder:
    """One with seeded weights in eval mode; matrices are `gain` times as large as at the start of training."""
    torch.manual_seed(0)

    def site(layer: Callable[..., nn.Module]) -> Site:
        return Site(layer=layer, norm=RMSNorm, smooth=smooth)

    net = EncoderDecoder(
        shape,
        vocab=vocab,
        encoder=partial(Block, sites={"encoder_attention": site(attention), "encoder_ffn": site(ffn)}),
        decoder=partial(Block, sites={"attention": site(attention), "cross": site(cross), "ffn": site(ffn)}),
        norm=RMSNorm,
        positions=Positions(rope=rope or Standard(), bias=bias, embed=embed),
    )
    with torch.no_grad():
        for weight in net.parameters():
            if weight.ndim > 1:
                weight *= gain
    return net.eval()
