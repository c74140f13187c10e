"""x-transformers: rotary, xPos, interpolated and NTK-rescaled rotary, PoPE, ALiBi, T5 and learned dynamic biases.

Tiny `TransformerWrapper` models. Its cache keeps keys that were not rotated and rotates all of them again.
Legend: T tokens, D head dim.
"""

from __future__ import annotations

import copy
import importlib.metadata
import math
from collections.abc import Iterator
from typing import Any

import torch
from tiny import HEADS, VOCAB, run_of, segment_mask, wake
from torch import Tensor

from aptlab.testing.invariance import NotOffered, Subject
from aptlab.testing.precision import compute_exact_scores

PROJECT = "x-transformers"
ROTARY: dict[str, dict[str, Any]] = {
    "rotary": {"rotary_pos_emb": True},
    "rotary interpolated": {"rotary_pos_emb": True, "rotary_interpolation_factor": 4.0},
    "rotary ntk": {"rotary_pos_emb": True, "rotary_base_rescale_factor": 4.0},
    "xpos": {"rotary_xpos": True},
}
BIASES: dict[str, dict[str, Any]] = {
    "alibi": {"alibi_pos_bias": True},
    "t5": {"rel_pos_bias": True},
    "dynamic bias": {"dynamic_pos_bias": True},
}
POLAR: dict[str, dict[str, Any]] = {"polar": {"polar_pos_emb": True}}


def names() -> list[str]:
    """All kinds of positions that attention itself sees."""
    return [*ROTARY, *POLAR, *BIASES]


def make(name: str, head_dim: int = 16) -> Subject:
    """The subject of one name."""
    return XTransformers(name, head_dim=head_dim)


class XTransformers(Subject):
    """A `TransformerWrapper` around a causal `Decoder`."""

    project = PROJECT
    vocab = VOCAB

    def __init__(self, name: str, *, head_dim: int) -> None:
        from x_transformers import Decoder, TransformerWrapper

        self.name, self.head_dim = name, head_dim
        self.version = importlib.metadata.version(PROJECT)
        self.bounded = "a bias of distances, made from 0 for the whole row" if name in BIASES else ""
        layers = Decoder(
            dim=32,
            depth=2,
            heads=HEADS,
            attn_dim_head=head_dim,
            verbose=False,
            **({"rotary_emb_dim": head_dim} if name in ROTARY else {}),
            **(ROTARY | BIASES | POLAR)[name],
        )
        net = TransformerWrapper(num_tokens=VOCAB, max_seq_len=0, use_abs_pos_emb=False, attn_layers=layers)
        self.net: Any = wake(net)

    def full(
        self,
        tokens_BT: Tensor,
        *,
        positions: Tensor | None = None,
        segments: Tensor | None = None,
        length: int | None = None,
    ) -> Tensor:
        net = copy.deepcopy(self.net)
        if positions is not None and self.name in ("t5", "dynamic bias"):
            if segments is None:
                raise NotOffered("this bias takes no positions")
            positions = None
        kwargs: dict[str, Any] = {} if positions is None else {"pos": positions.expand_as(tokens_BT)}
        if segments is not None and int(segments.max()) > 1:
            return net(tokens_BT, attn_mask=segment_mask(segments).unsqueeze(1), **kwargs)
        if segments is not None and not bool(segments[:, 0].all()):
            # the library's own way for padding on the left, as its `generate` does it
            return net(tokens_BT, seq_start_pos=(segments == 0).sum(1))
        if segments is not None:
            return net(tokens_BT, mask=segments.bool())  # padding on the right: positions are counted
        return net(tokens_BT, **kwargs)

    def cached(self, tokens_BT: Tensor, chunks: tuple[int, ...]) -> Tensor:
        net, begin = copy.deepcopy(self.net), chunks[0]
        logits, cache = net(tokens_BT[:, :begin], return_intermediates=True)
        parts = [logits]
        while begin < tokens_BT.shape[1]:
            begin += chunks[-1]
            logits, cache = net(tokens_BT[:, :begin], cache=cache, return_intermediates=True)
            parts.append(logits[:, -chunks[-1] :])
        return torch.cat(parts, dim=1)

    def cast(self, dtype: torch.dtype) -> XTransformers:
        other = copy.copy(self)
        other.net = copy.deepcopy(self.net).to(dtype)
        return other

    def scores(self, q_TD: Tensor, k_TD: Tensor, positions: Tensor) -> Tensor:
        from x_transformers.x_transformers import apply_polar_pos_emb, apply_rotary_pos_emb

        layers, scale = copy.deepcopy(self.net.attn_layers), 1 / math.sqrt(self.head_dim)
        if self.name in BIASES:
            first, last = run_of(positions)
            bias = layers.rel_pos(last - first + 1, last + 1).double()
            return q_TD.double() @ k_TD.double().mT * scale + bias[:, positions - first][:, :, positions]
        q, k = (x[None, None] for x in (q_TD, k_TD))
        if self.name in POLAR:
            freqs, bias = layers.polar_pos_emb(positions)
            rotated = apply_polar_pos_emb(q, freqs), apply_polar_pos_emb(k, freqs + bias)
            q, k = (x.double() for x in rotated)
            return q @ k.mT * scale
        freqs, power = layers.rotary_pos_emb(positions)
        rotated = apply_rotary_pos_emb(q, freqs, power), apply_rotary_pos_emb(k, freqs, power**-1.0)
        q, k = (x[0, 0].double() for x in rotated)
        return q @ k.mT * scale

    def exact(self, q_TD: Tensor, k_TD: Tensor, positions: Tensor) -> Tensor:
        if self.name in POLAR:
            raise NotOffered("PoPE rotates magnitudes, not pairs; no reference here")
        rotary = self.net.attn_layers.rotary_pos_emb
        theta = rotary.inv_freq.double() / rotary.interpolation_factor
        decay = rotary.scale.double() ** (1 / rotary.scale_base) if self.name == "xpos" else None
        return compute_exact_scores(q_TD, k_TD, positions, theta, layout="interleaved", decay_P=decay)

    def relaid(self) -> Subject:
        raise NotOffered("interleaved only" if self.name in ROTARY else "no pairs that rotate")


def claims() -> Iterator[tuple[str, str, bool]]:
    """(claim of positions.md 2.1 and 1.5, what was found, whether it reproduces) beside the laws."""
    subject = XTransformers("xpos", head_dim=64)
    found = []
    for last in (60_000, 80_000):
        _, power = subject.net.attn_layers.rotary_pos_emb(torch.arange(last))
        found.append(bool(power.isfinite().all() and (1 / power).isfinite().all()))
    text = f"factors finite at 60,000 tokens: {found[0]}; at 80,000: {found[1]}"
    yield "1.5: xPos is NaN or infinite at 80,000 tokens", text, not found[1]
