"""Texts to measure candidates on: local text with a number hidden in it, or as it is. No torch.

Legend: T tokens of a sample. Everything is counted in tokens, so a sample has exactly the length asked for.

A needle sample is `text … needle … text question answer`. Needle i of n lies at depth (i + jitter) / n of the text
(stratified, as in the released code of LongRoPE2), and the answer is the 7-digit number of the needle.
A short sample may stand for a long one: its positions jump before and behind the needle (PoSE, Zhu et al. 2023,
arXiv:2309.10400) so that needle and question are as far apart as in `span` tokens.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from aptlab.errors import ConfigError, DataError

NEEDLE = "\nThe magic number is {number}. Remember it: {number} is the magic number.\n"
QUESTION = "\nWhat is the magic number? The magic number is "
DIGITS = 7


class TokenArray(Protocol):
    """Tokens [N] that can be counted and cut."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: slice, /) -> np.ndarray: ...


class TokenStream(Protocol):
    """Tokens [N] of documents that begin at `offsets` [D + 1]."""

    @property
    def tokens(self) -> TokenArray: ...
    @property
    def offsets(self) -> np.ndarray: ...


class TextEncoder(Protocol):
    """A tokenizer."""

    def encode(self, text: str) -> list[int]: ...


@dataclass(frozen=True)
class SearchSample:
    """Tokens and positions, int64 [T].

    answer  targets that are the hidden number, as a slice of tokens; None where there is none
    text    targets of plain text behind position `after`, a bool mask [T] over tokens
    depth   where the needle lies, in [0, 1]
    """

    tokens: np.ndarray
    positions: np.ndarray
    answer: slice | None
    text: np.ndarray
    depth: float = 0.0


def make_samples(
    side: TokenStream,
    encoder: TextEncoder | None,
    *,
    length: int,
    count: int,
    span: int | None = None,
    after: int = 0,
    seed: int = 0,
    prefix: Sequence[int] = (),
) -> list[SearchSample]:
    """`count` samples of `length` tokens over the text of `side`; with an `encoder`, each hides a number.

    span   positions reach up to this length, default `length`
    after  plain text counts from this position on
    prefix ids that every text begins with, in place of the sample's first tokens
    Raises DataError where the text is shorter than a sample, ConfigError where a needle does not fit.
    """
    if len(side.tokens) < length + 1:
        raise DataError(
            f"the validation text has {len(side.tokens):,} tokens, and a sample takes {length + 1:,}; use more text, "
            "a larger data.split.val_fraction or a smaller target"
        )
    starts = spread_starts(side, length, count)
    rng = random.Random(f"aptlab needles {seed} {length}")
    samples = []
    for number, start in enumerate(starts):
        hay = np.array(side.tokens[start : start + length], dtype=np.int64)
        hay[: len(prefix)] = prefix
        depth = (number + rng.random()) / count
        if encoder is None:
            samples.append(make_plain_sample(hay, span or length, after, rng))
        else:
            samples.append(make_needle_sample(hay, encoder, depth, span or length, after, rng, first=len(prefix)))
    return samples


def count_needle_tokens(encoder: TextEncoder) -> int:
    """Tokens that a needle, its question and its answer take, at most one or two more."""
    number = "8" * DIGITS
    return sum(len(encoder.encode(text)) for text in (NEEDLE.format(number=number), QUESTION, number))


def spread_starts(side: TokenStream, length: int, count: int) -> np.ndarray:
    """First tokens of `count` texts spread over the documents that are long enough, else over the whole stream."""
    offsets = np.asarray(side.offsets, dtype=np.int64)
    rooms = np.maximum(np.diff(offsets) - length, 0)
    total = int(rooms.sum())
    if total < count:
        return np.arange(count, dtype=np.int64) * (len(side.tokens) - length) // count
    places = (np.arange(count, dtype=np.int64) * 2 + 1) * total // (2 * count)
    ends = np.cumsum(rooms)
    document = np.searchsorted(ends, places, side="right")
    return offsets[document] + places - (ends[document] - rooms[document])


def make_needle_sample(
    hay: np.ndarray, encoder: TextEncoder, depth: float, span: int, after: int, rng: random.Random, *, first: int = 0
) -> SearchSample:
    """Text of the same length with a needle at `depth`, behind `first` tokens, and question and answer at the end."""
    number = "".join(str(rng.randrange(1 if i == 0 else 0, 10)) for i in range(DIGITS))
    needle, question, answer = (encoder.encode(t) for t in (NEEDLE.format(number=number), QUESTION, number))
    room = len(hay) - len(needle) - len(question) - len(answer)
    if room < 1:
        raise ConfigError(
            f"a needle with its question takes {len(hay) - room} tokens, more than a sample of {len(hay)}; use a "
            "longer target, or search.objective=ppl"
        )
    cut = min(max(int(depth * room), first), room)
    tokens = np.concatenate([hay[:cut], needle, hay[cut:room], question, answer]).astype(np.int64)
    last = cut + len(needle)
    positions = make_jumping_positions(len(tokens), span, [(cut, depth), (last + (room - cut) // 2, 1.0)])
    text = positions >= after
    text[cut:last] = False
    text[room + len(needle) :] = False
    return SearchSample(tokens, positions, slice(len(tokens) - len(answer), len(tokens)), text, depth)


def make_plain_sample(hay: np.ndarray, span: int, after: int, rng: random.Random) -> SearchSample:
    """Text as it is."""
    positions = make_jumping_positions(len(hay), span, [(rng.randrange(1, len(hay)), 1.0)])
    return SearchSample(hay, positions, None, positions >= after)


def make_jumping_positions(length: int, span: int, jumps: list[tuple[int, float]]) -> np.ndarray:
    """Positions 0 … length - 1 with `span` - `length` left out; before token `at`, `share` of them are gone."""
    positions = np.arange(length, dtype=np.int64)
    gone = 0
    for at, share in jumps:
        step = int(share * (span - length)) - gone
        positions[at:] += step
        gone += step
    return positions
