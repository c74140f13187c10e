"""torchtune: rotary positions and Llama 3.1's scaled ones, in its own decoders with its own cache.

Tables are built for `max_seq_len` positions, so the model of the laws has a small one and `scores` builds what it
needs. Legend: B batch, T tokens, S cache, D head dim.
"""

from __future__ import annotations

import copy
import importlib.metadata
import math
from collections.abc import Iterator
from typing import Any

import torch
from tiny import HEADS, VOCAB, segment_mask, wake
from torch import Tensor

from aptlab.testing.invariance import SWITCH, NotOffered, Subject
from aptlab.testing.precision import compute_exact_scores

PROJECT = "torchtune"
LONGEST = 2048


def names() -> list[str]:
    """Its two kinds of positions."""
    return ["rope", "llama3"]


def make(name: str, head_dim: int = 16) -> Subject:
    """The subject of one name."""
    return TorchTune(name, head_dim=head_dim)


class TorchTune(Subject):
    """A tiny `TransformerDecoder`."""

    project = PROJECT
    vocab = VOCAB

    def __init__(self, name: str, *, head_dim: int) -> None:
        from torchtune.models import llama3, llama3_1

        self.name, self.head_dim, self.dtype = name, head_dim, torch.float32
        self.version = importlib.metadata.version(PROJECT)
        build = llama3.llama3 if name == "rope" else llama3_1.llama3_1
        sizes = {"num_layers": 2, "num_heads": HEADS, "num_kv_heads": 2, "embed_dim": HEADS * head_dim}
        net = build(vocab_size=VOCAB, max_seq_len=LONGEST, intermediate_dim=96, rope_base=10_000, **sizes)
        self.net: Any = wake(net)

    def full(
        self,
        tokens_BT: Tensor,
        *,
        positions: Tensor | None = None,
        segments: Tensor | None = None,
        length: int | None = None,
    ) -> Tensor:
        mask = None if segments is None else segment_mask(segments)
        places = None if positions is None else positions.expand_as(tokens_BT)
        return self.net(tokens_BT, mask=mask, input_pos=places)

    def cached(self, tokens_BT: Tensor, chunks: tuple[int, ...]) -> Tensor:
        batch, tokens = tokens_BT.shape
        net, begin, parts = copy.deepcopy(self.net), 0, []
        net.setup_caches(batch_size=batch, dtype=torch.float32, decoder_max_seq_len=tokens)
        causal = torch.ones(tokens, tokens, dtype=torch.bool).tril().expand(batch, -1, -1)
        for size in [chunks[0], *[chunks[-1]] * (tokens - chunks[0])]:
            rows = slice(begin, begin + size)
            places = torch.arange(tokens)[rows].expand(batch, -1)
            parts.append(net(tokens_BT[:, rows], mask=causal[:, rows], input_pos=places))
            begin += size
        return torch.cat(parts, dim=1)

    def cast(self, dtype: torch.dtype) -> TorchTune:
        other = copy.copy(self)
        other.net, other.dtype = copy.deepcopy(self.net).to(dtype), dtype
        return other

    def rotary(self, longest: int) -> Any:
        from torchtune.models.llama3_1 import Llama3ScaledRoPE
        from torchtune.modules import RotaryPositionalEmbeddings

        kind = RotaryPositionalEmbeddings if self.name == "rope" else Llama3ScaledRoPE
        return kind(self.head_dim, max_seq_len=longest, base=10_000).to(self.dtype)

    def scores(self, q_TD: Tensor, k_TD: Tensor, positions: Tensor) -> Tensor:
        rotary = self.rotary(int(positions.max()) + 1)
        q, k = (
            rotary(x.view(1, -1, 1, self.head_dim), input_pos=positions.unsqueeze(0))[0, :, 0].double()
            for x in (q_TD, k_TD)
        )
        return q @ k.mT / math.sqrt(self.head_dim)

    def exact(self, q_TD: Tensor, k_TD: Tensor, positions: Tensor) -> Tensor:
        return compute_exact_scores(q_TD, k_TD, positions, self.rotary(SWITCH).theta.double(), layout="interleaved")

    def relaid(self) -> Subject:
        raise NotOffered("interleaved only; converters permute weights at import")


def claims() -> Iterator[tuple[str, str, bool]]:
    """(claim of positions.md 2.1, what was found, whether it reproduces) beside the laws."""
    from torchtune.modules import RotaryPositionalEmbeddings

    rotary, x = RotaryPositionalEmbeddings(16, max_seq_len=64), torch.ones(1, 65, 1, 16)
    found = "no error, table grown"
    try:
        rotary(x)
    except Exception as error:
        found = f"{type(error).__name__} at max_seq_len + 1 tokens"
    yield "by reading: the table never grows, though the docstring says so", found, found != "no error, table grown"
