"""rotary-embedding-torch: its `RotaryEmbedding` in the attention of a tiny decoder.

The class has no positions argument, only an offset; a cache keeps keys that were not rotated, as its README says for
`rotate_queries_with_cached_keys`. Legend: T tokens, D head dim, R places from the first position to the last.
"""

from __future__ import annotations

import copy
import importlib.metadata
import math
from collections.abc import Iterator
from typing import Any

import torch
from tiny import VOCAB, Net, PeerRotation, run_of, scattered, segment_mask, wake
from torch import Tensor

from aptlab.testing.invariance import NotOffered, Subject
from aptlab.testing.precision import compute_exact_scores

PROJECT = "rotary-embedding-torch"
TYPES: dict[str, dict[str, Any]] = {
    "lang": {},
    "lang interpolated": {"interpolate_factor": 4.0},
    "lang ntk": {"theta_rescale_factor": 4.0},
    "lang learned": {"learned_freq": True},
    "cached keys": {},
    "xpos": {"use_xpos": True},
}


def names() -> list[str]:
    """`lang` rotates new queries by `offset`; "cached keys" and xpos by `rotate_queries_with_cached_keys`."""
    return list(TYPES)


def make(name: str, head_dim: int = 16) -> Subject:
    """The subject of one name."""
    return Lucidrains(name, head_dim=head_dim)


class Own(PeerRotation):
    """The class's methods for a pass and for decoding."""

    def __init__(self, name: str, head_dim: int) -> None:
        super().__init__()
        from rotary_embedding_torch import RotaryEmbedding

        self.rotary, self.name = RotaryEmbedding(head_dim, **TYPES[name]), name

    def forward(self, q_BHTD: Tensor, k_BHSD: Tensor) -> tuple[Tensor, Tensor]:
        new, seen = q_BHTD.shape[2], k_BHSD.shape[2]
        if self.name in ("cached keys", "xpos"):
            if new == seen and self.name == "xpos":
                return self.rotary.rotate_queries_and_keys(q_BHTD, k_BHSD)
            return self.rotary.rotate_queries_with_cached_keys(q_BHTD, k_BHSD)
        rotation = self.rotary.rotate_queries_or_keys
        return rotation(q_BHTD, offset=seen - new), rotation(k_BHSD)


class Lucidrains(Subject):
    """The tiny decoder with one kind of its rotary class."""

    project = PROJECT
    vocab = VOCAB

    def __init__(self, name: str, *, head_dim: int) -> None:
        self.name, self.head_dim = name, head_dim
        self.version = importlib.metadata.version(PROJECT)
        self.dtype = torch.float32

    def net(self) -> Any:
        """A fresh model, because the class keeps what it computed for the dtype it met first; deepcopy rejects xPos."""
        return wake(Net(Own(self.name, self.head_dim), head_dim=self.head_dim)).to(self.dtype)

    def full(
        self,
        tokens_BT: Tensor,
        *,
        positions: Tensor | None = None,
        segments: Tensor | None = None,
        length: int | None = None,
    ) -> Tensor:
        if positions is not None and segments is None:
            raise NotOffered("an offset per call, no positions")
        net = self.net()
        return net(tokens_BT, None if segments is None else segment_mask(segments))

    def cached(self, tokens_BT: Tensor, chunks: tuple[int, ...]) -> Tensor:
        net, cache, parts, begin = self.net(), [], [], 0
        for size in [chunks[0], *[chunks[-1]] * tokens_BT.shape[1]]:
            if begin < tokens_BT.shape[1]:
                parts.append(net(tokens_BT[:, begin : begin + size], cache=cache))
            begin += size
        return torch.cat(parts, dim=1)

    def cast(self, dtype: torch.dtype) -> Lucidrains:
        other = copy.copy(self)
        other.dtype = dtype
        return other

    def scores(self, q_TD: Tensor, k_TD: Tensor, positions: Tensor) -> Tensor:
        """By `offset` where the run does not begin at 0; xpos has no offset and rotates the whole row."""
        rotary = self.net().rotation.rotary
        first, last = run_of(positions)
        if self.name == "xpos":
            if last > 2_000_000:
                raise NotOffered("xPos takes no offset: a row of ten million tokens would be needed")
            places = torch.cat((positions, positions.new_tensor([0])))
            q, k = (scattered(torch.cat((x, x[:1] * 0)), places)[None, None] for x in (q_TD, k_TD))
            rotated, at = rotary.rotate_queries_and_keys(q, k), positions
        else:
            q, k = (scattered(x, positions)[None, None] for x in (q_TD, k_TD))
            rotated, at = [rotary.rotate_queries_or_keys(x, offset=first) for x in (q, k)], positions - first
        q, k = (x[0, 0, at].double() for x in rotated)
        return q @ k.mT / math.sqrt(self.head_dim)

    def exact(self, q_TD: Tensor, k_TD: Tensor, positions: Tensor) -> Tensor:
        rotary = self.net().rotation.rotary
        theta = rotary.freqs.detach().double() / rotary.interpolate_factor
        decay = rotary.scale.double() ** (1 / rotary.scale_base) if self.name == "xpos" else None
        return compute_exact_scores(q_TD, k_TD, positions, theta, layout="interleaved", decay_P=decay)

    def relaid(self) -> Subject:
        raise NotOffered("interleaved only")


def claims() -> Iterator[tuple[str, str, bool]]:
    """(claim of positions.md 2.1, what was found, whether it reproduces) beside the laws."""
    from rotary_embedding_torch import RotaryEmbedding

    rotary = RotaryEmbedding(64)
    x = torch.ones(1, 1, 1000, 64, dtype=torch.bfloat16)
    rotated = rotary.rotate_queries_or_keys(x)[0, 0].float()
    pairs, whole = (len(torch.unique(rows, dim=0)) for rows in (rotated[:, :2], rotated))
    found = f"1,000 positions give {whole} distinct rotations of 64 dims, {pairs} of the fastest pair"
    yield "7: bfloat16 inputs get positions built in bfloat16 (63 distinct rotations among 1,000)", found, whole < 900
    rotary, generator = RotaryEmbedding(64, use_xpos=True), torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 1, 1, 1024, 64, generator=generator)
    whole_q, whole_k = rotary.rotate_queries_and_keys(q, k)
    last_q, keys = RotaryEmbedding(64, use_xpos=True).rotate_queries_with_cached_keys(q[:, :, -1:], k)
    ratio = ((last_q @ keys.mT) / (whole_q[:, :, -1:] @ whole_k.mT)).median().item()
    yield (
        "8: xPos decoding centres queries and keys apart (logits x 0.76)",
        f"median ratio of logits at 1,024 keys: {ratio:.2f}",
        abs(ratio - 1) > 0.05,
    )
