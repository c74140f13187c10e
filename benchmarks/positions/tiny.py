"""What adapters share: weights that make attention uneven, and a tiny decoder around a peer's rotary class.

Legend: B batch, H heads, T new tokens, S all tokens, D head dim, C dim, V vocabulary.
"""

from __future__ import annotations

import abc
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

VOCAB = 61
HEADS = 4
DEPTH = 2


def wake(net: nn.Module, *, seed: int = 0, gain: float = 1.5) -> nn.Module:
    """Seeded weights large enough that attention is not uniform, so that a wrong position shows; in eval mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in net.named_parameters():
            if weight.ndim > 1 and weight.requires_grad:
                embedding = "emb" in name
                std = 1.0 if embedding else gain / math.sqrt(weight.shape[-1])
                weight.copy_(torch.randn(weight.shape, generator=generator) * std)
    return net.eval()


def segment_mask(segments_BT: Tensor) -> Tensor:
    """Which keys a query sees: earlier ones of its own segment; bool [B, T, T].

    Padding sees the padding before it, so that no row is empty.
    """
    tokens = segments_BT.shape[1]
    same = segments_BT.unsqueeze(2) == segments_BT.unsqueeze(1)
    return same & torch.ones(tokens, tokens, dtype=torch.bool).tril()


def run_of(positions_T: Tensor) -> tuple[int, int]:
    """First and last of the positions, for peers that rotate side by side only."""
    return int(positions_T.min()), int(positions_T.max())


def scattered(x_TD: Tensor, positions_T: Tensor) -> Tensor:
    """The vectors at their places in a run from the first position to the last, zeros between; [R, D]."""
    first, last = run_of(positions_T)
    return x_TD.new_zeros(last - first + 1, x_TD.shape[-1]).index_copy(0, positions_T - first, x_TD)


class PeerRotation(abc.ABC, nn.Module):
    """How a peer's class rotates the queries of new tokens and the keys of all; keys are kept as they came."""

    @abc.abstractmethod
    def forward(self, q_BHTD: Tensor, k_BHSD: Tensor) -> tuple[Tensor, Tensor]:
        """Rotated queries of the last T of S tokens, and rotated keys of all S."""


class Net(nn.Module):
    """A decoder whose attention calls a `Rotate`; its cache holds keys that were not rotated."""

    def __init__(self, rotation: PeerRotation, *, head_dim: int) -> None:
        super().__init__()
        dim = HEADS * head_dim
        self.rotation, self.head_dim = rotation, head_dim
        self.emb = nn.Embedding(VOCAB, dim)
        self.qkv = nn.ModuleList(nn.Linear(dim, 3 * dim, bias=False) for _ in range(DEPTH))
        self.out = nn.ModuleList(nn.Linear(dim, dim, bias=False) for _ in range(DEPTH))
        self.head = nn.Linear(dim, VOCAB, bias=False)

    def forward(self, tokens: Tensor, mask: Tensor | None = None, cache: list[Tensor] | None = None) -> Tensor:
        """Logits [B, T, V]; `mask` bool [B, T, S]; `cache` holds keys and values of each layer, and is extended."""
        x = self.emb(tokens)
        for layer in range(DEPTH):
            heads = self.qkv[layer](F.rms_norm(x, x.shape[-1:])).unflatten(-1, (3, HEADS, -1))
            q, k, v = heads.permute(2, 0, 3, 1, 4)
            if cache is not None:
                if len(cache) > layer:
                    k, v = (torch.cat(pair, dim=2) for pair in zip(cache[layer], (k, v), strict=True))
                    cache[layer] = torch.stack((k, v))
                else:
                    cache.append(torch.stack((k, v)))
            q, k = self.rotation(q, k)
            causal = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril(k.shape[2] - q.shape[2])
            seen = causal if mask is None else mask.unsqueeze(1)
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
            x = x + self.out[layer](out.transpose(1, 2).flatten(2))
        return self.head(F.rms_norm(x, x.shape[-1:]))
