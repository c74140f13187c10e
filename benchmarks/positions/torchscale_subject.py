"""torchscale: xPos and the T5 bias, in a stack of its `MultiheadAttention` layers.

Its attention takes no positions; a cache keeps keys that were not rotated.
Legend: B batch, T tokens, D head dim, C dim.
"""

from __future__ import annotations

import copy
import importlib.metadata
import math
from types import SimpleNamespace
from typing import Any

import torch
from tiny import DEPTH, HEADS, VOCAB, run_of, scattered, segment_mask, wake
from torch import Tensor, nn
from torch.nn import functional as F

from aptlab.testing.invariance import NotOffered, Subject
from aptlab.testing.precision import compute_exact_scores

PROJECT = "torchscale"


def names() -> list[str]:
    """Its two kinds of positions."""
    return ["xpos", "t5"]


def make(name: str, head_dim: int = 16) -> Subject:
    """The subject of one name."""
    return TorchScale(name, head_dim=head_dim)


class Stack(nn.Module):
    """Embedding, two layers of torchscale's attention with a residual, and a head."""

    def __init__(self, name: str, head_dim: int) -> None:
        super().__init__()
        from torchscale.component.multihead_attention import MultiheadAttention
        from torchscale.component.relative_position_bias import RelativePositionBias

        dim = HEADS * head_dim
        args = SimpleNamespace(multiway=False, xpos_rel_pos=name == "xpos", xpos_scale_base=512, layernorm_eps=1e-5)
        self.emb = nn.Embedding(VOCAB, dim)
        self.layers = nn.ModuleList(MultiheadAttention(args, dim, HEADS, self_attention=True) for _ in range(DEPTH))
        self.bias = RelativePositionBias(bidirectional=False, n_heads=HEADS) if name == "t5" else None
        self.head = nn.Linear(dim, VOCAB, bias=False)

    def forward(
        self, tokens_BT: Tensor, mask_TS: Tensor, padding_BS: Tensor | None = None, states: list[dict] | None = None
    ) -> Tensor:
        x, past = self.emb(tokens_BT), 0
        if states is not None and "prev_key" in states[0]:
            past = states[0]["prev_key"].shape[2]
        batch, tokens = tokens_BT.shape
        rel_pos = None if self.bias is None else self.bias(batch, tokens, past + tokens, step=past)
        for i, layer in enumerate(self.layers):
            y = F.layer_norm(x, x.shape[-1:])
            state = None if states is None else states[i]
            rest = {"key_padding_mask": padding_BS, "incremental_state": state, "is_first_step": past == 0}
            x = x + layer(y, y, y, attn_mask=mask_TS.to(x.dtype), rel_pos=rel_pos, **rest)[0]
        return self.head(F.layer_norm(x, x.shape[-1:]))


class TorchScale(Subject):
    """The stack with one kind of positions."""

    project = PROJECT
    vocab = VOCAB

    def __init__(self, name: str, *, head_dim: int) -> None:
        self.name, self.head_dim = name, head_dim
        self.version = importlib.metadata.version(PROJECT)
        self.bounded = "a bias of distances, made from 0 for the whole row" if name == "t5" else ""
        self.net: Any = wake(Stack(name, head_dim))

    def full(
        self,
        tokens_BT: Tensor,
        *,
        positions: Tensor | None = None,
        segments: Tensor | None = None,
        length: int | None = None,
    ) -> Tensor:
        if positions is not None and segments is None:
            raise NotOffered("its attention takes no positions")
        seen = torch.ones(tokens_BT.shape[1], tokens_BT.shape[1], dtype=torch.bool).tril()
        padding = None
        if segments is not None and int(segments.max()) > 1:
            seen = segment_mask(segments)[0]
        elif segments is not None:
            return self._padded(tokens_BT, seen, segments)
        return self.net(tokens_BT, added(seen), padding)

    def _padded(self, tokens_BT: Tensor, seen: Tensor, segments: Tensor) -> Tensor:
        """With its padding mask; rows of padding on the left see nothing, which its softmax makes NaN."""
        if bool(segments[:, 0].all()):
            return self.net(tokens_BT, added(seen), segments == 0)
        return self.net(tokens_BT, added(segment_mask(segments)[0]))

    def cached(self, tokens_BT: Tensor, chunks: tuple[int, ...]) -> Tensor:
        states: list[dict] = [{} for _ in range(DEPTH)]
        first, parts = chunks[0], []
        parts.append(
            self.net(tokens_BT[:, :first], added(torch.ones(first, first, dtype=torch.bool).tril()), None, states)
        )
        rest = range(first, tokens_BT.shape[1])
        parts += [self.net(tokens_BT[:, at : at + 1], torch.zeros(1, at + 1), None, states) for at in rest]
        return torch.cat(parts, dim=1)

    def cast(self, dtype: torch.dtype) -> TorchScale:
        other = copy.copy(self)
        other.net = copy.deepcopy(self.net).to(dtype)
        return other

    def scores(self, q_TD: Tensor, k_TD: Tensor, positions: Tensor) -> Tensor:
        first, last = run_of(positions)
        if self.name == "t5":
            bias = self.net.bias.compute_bias(last - first + 1, last + 1, step=first)[0].double()
            product = q_TD.double() @ k_TD.double().mT / math.sqrt(self.head_dim)
            return product + bias[:, positions - first][:, :, positions]
        xpos = self.net.layers[0].xpos
        q = xpos(scattered(q_TD, positions)[None], offset=first)
        k = xpos(scattered(k_TD, positions)[None], offset=first, downscale=True)
        q, k = (x[0, positions - first].double() for x in (q, k))
        return q @ k.mT / math.sqrt(self.head_dim)

    def exact(self, q_TD: Tensor, k_TD: Tensor, positions: Tensor) -> Tensor:
        xpos = self.net.layers[0].xpos
        half = self.head_dim // 2
        theta = (1.0 / (10000 ** (torch.arange(0, half) / half))).double()
        decay = xpos.scale.double() ** (1 / xpos.scale_base)
        return compute_exact_scores(q_TD, k_TD, positions, theta, layout="interleaved", decay_P=decay)

    def relaid(self) -> Subject:
        raise NotOffered("interleaved only" if self.name == "xpos" else "no pairs that rotate")


def added(seen: Tensor) -> Tensor:
    """0 where a key is seen, minus infinity elsewhere."""
    return torch.zeros(seen.shape).masked_fill(~seen, float("-inf"))
