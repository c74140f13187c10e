"""A decoder small enough for tests. Legend: B batch, T tokens, V vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from aptlab.models import Decoder
from aptlab.nn.attention import FullAttention
from aptlab.nn.ffn import SwiGLU
from aptlab.nn.norm import RMSNorm
from aptlab.nn.positions.rope import Rope, Standard
from aptlab.nn.shape import Shape
from aptlab.nn.smooth import Plain

VOCAB = 61
SHAPE = Shape(dim=32, depth=3, heads=4, kv_heads=2, head_dim=16, hidden=48)


def make_tiny_decoder(
    *,
    rope: Rope | None = None,
    smooth: Callable[..., nn.Module] = Plain,
    shape: Shape = SHAPE,
    vocab: int = VOCAB,
    seed: int = 0,
    gain: float = 8.0,
    **parts: Any,
) -> Decoder:
    """A decoder with seeded weights, in eval mode; `parts` are further arguments of `Decoder`.

    Matrices are `gain` times as large as at the start of training, so that attention is not uniform and a wrong
    position shows in the logits.
    """
    defaults = {"attention": FullAttention, "ffn": SwiGLU, "norm": partial(RMSNorm, eps=1e-5)}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = Decoder(shape, vocab=vocab, rope=rope or Standard(), smooth=smooth, **(defaults | parts))
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
