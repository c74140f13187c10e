"""Soft tokens in front of prompts. Legend: B rows, T tokens with pads and soft tokens, P soft tokens, C dim."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from aptlab.errors import AptlabError
from aptlab.models import Decoder

Prefixes = Sequence[Tensor | None]


def check_prefixes(prefixes: Prefixes | None, prompts: Sequence[Sequence[int]], net: Decoder) -> Prefixes:
    """One prefix [P, C] for each prompt, None = none; AptlabError for other counts and sizes."""
    if prefixes is None:
        return [None] * len(prompts)
    if len(prefixes) != len(prompts):
        raise AptlabError(f"{len(prefixes)} prefixes for {len(prompts)} prompts; give one per prompt, None for none")
    for number, prefix in enumerate(prefixes):
        if prefix is not None and (prefix.ndim != 2 or prefix.shape[1] != net.shape.dim):
            raise AptlabError(f"prefix {number} has sizes {list(prefix.shape)}; the model takes [P, {net.shape.dim}]")
    return prefixes


def count_soft_tokens(prefix: Tensor | None) -> int:
    """P of a prefix [P, C]."""
    return 0 if prefix is None else len(prefix)


def reserve_places(prompts: Sequence[Sequence[int]], prefixes: Prefixes) -> list[list[int]]:
    """The prompts with a zero in front for each soft token."""
    return [[0] * count_soft_tokens(one) + list(prompt) for one, prompt in zip(prefixes, prompts, strict=True)]


def embed_with_prefixes(net: Decoder, tokens_BT: Tensor, prefixes: Prefixes, pads_B1: Tensor) -> Tensor:
    """Rows of the embedding, [B, T, C], with each row's soft tokens in their places, right behind its pads."""
    embeds_BTC = net.embed_tokens(tokens_BT, None).clone()
    for row, prefix in enumerate(prefixes):
        if prefix is not None:
            begin = int(pads_B1[row])
            embeds_BTC[row, begin : begin + len(prefix)] = prefix.to(embeds_BTC)
    return embeds_BTC
