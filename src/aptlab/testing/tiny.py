"""A decoder small enough for tests. Legend: B batch, T tokens, V vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from aptlab.models import Decoder, HeadRule
from aptlab.nn.attention import FullAttention
from aptlab.nn.block import Block, NormFactory, Site
from aptlab.nn.ffn import SwiGLU
from aptlab.nn.norm import RMSNorm
from aptlab.nn.positions import Positions
from aptlab.nn.positions.absolute import AddedPositions
from aptlab.nn.positions.bias import PositionBias
from aptlab.nn.positions.rope import Rope, Standard
from aptlab.nn.shape import Shape
from aptlab.nn.smooth import Plain

VOCAB = 61
SHAPE = Shape(dim=32, depth=3, heads=4, kv_heads=2, head_dim=16, hidden=48)


def make_decoder(
    shape: Shape,
    *,
    vocab: int = VOCAB,
    tied: bool = True,
    rope: Rope | None = None,
    bias: Callable[..., PositionBias] | None = None,
    embed: Callable[..., AddedPositions] | None = None,
    norm: NormFactory = RMSNorm,
    embedding: Callable[..., nn.Embedding] = nn.Embedding,
    head: HeadRule | None = None,
    post_norm: bool = False,
    **sites: Callable[..., Any],
) -> Decoder:
    """A decoder from its parts as classes or partials; `sites` are attention, its memory, ffn and smooth.

    post_norm  normalise the stream after every join, and not what a layer reads
    """
    layers = {"attention": sites.pop("attention", FullAttention), "ffn": sites.pop("ffn", SwiGLU)}
    smooth, memory = sites.pop("smooth", Plain), sites.pop("memory", None)
    norms: dict[str, Any] = {"norm": None, "norm_joined": norm} if post_norm else {"norm": norm}
    placed = {
        name: Site(layer=layer, smooth=smooth, memory=memory if name == "attention" else None, **norms)
        for name, layer in (layers | sites).items()
    }
    return Decoder(
        shape,
        vocab=vocab,
        block=partial(Block, sites=placed),
        norm=norm,
        positions=Positions(rope=rope or Standard(), bias=bias, embed=embed),
        tied=tied,
        embedding=embedding,
        head=head,
    )


def make_tiny_decoder(*, shape: Shape = SHAPE, seed: int = 0, gain: float = 8.0, **parts: Any) -> Decoder:
    """A decoder with seeded weights, in eval mode; `parts` are further arguments of `make_decoder`.

    Matrices are `gain` times as large as at the start of training, so that attention is not uniform and a wrong
    position shows in the logits.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = make_decoder(shape, **parts)
        with torch.no_grad():
            for name, weight in net.named_parameters():
                if weight.ndim > 1:
                    weight.mul_(gain)
                elif name.endswith("norm.weight"):
                    weight.uniform_(0.5, 1.5)
                elif name.endswith(("bias", "sinks")):
                    weight.normal_(std=0.1)
    return net.eval()


def make_random_tokens(batch: int, tokens: int, *, vocab: int = VOCAB, seed: int = 0) -> Tensor:
    """Seeded token ids, int64 [B, T]."""
    return torch.randint(vocab, (batch, tokens), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def decode_in_chunks(net: Decoder, tokens_BT: Tensor, chunks: Iterable[int]) -> Tensor:
    """Logits [B, T, V] computed with a cache, `chunks` tokens at a time; the last size repeats until the end."""
    cache = net.new_cache(tokens_BT.shape[0], tokens_BT.shape[1])
    sizes, size, begin, parts = iter(chunks), 1, 0, []
    while begin < tokens_BT.shape[1]:
        size = next(sizes, size)
        parts.append(net(tokens_BT[:, begin : begin + size], cache=cache).logits)
        begin += size
    return torch.cat(parts, dim=1)
