"""Eight laws of positions, measured on any model: this project's, or one of another project behind an adapter.

    subject = ...                              # a `Subject`
    for law in LAWS:
        print(measure(subject, law))           # a number, its limit, and pass, FAIL, n/a or error

Every law returns how far two ways to the same answer are apart; `measure` judges it. Differences of a model's logits
are given in standard deviations of these logits, so that models of different scale can be compared; differences of
single attention scores are those of queries and keys of unit variance, divided by sqrt(D), and beyond a score of 1
relative to it.

Legend: B batch, T tokens, V vocabulary, D head dim, N streams of positions, L layers, H heads.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from aptlab.testing.precision import FAR, compute_score_errors, make_unit_vectors, measure_errors_at

TOKENS = 96  # longer than any switch that the adapters configure (SWITCH)
SHORT = 24  # shorter than that switch
SWITCH = 32  # trained context of rules that go by length
SHIFTS = (1, 4, 131, 1000)
DOCUMENTS = (24, 40, 32)
FIRST, LAST = 257, 1023  # positions at which bfloat16 is looked at: it holds integers up to 256
CHANGES = 1e-3  # what a subject that is not relative must change by at least
BFLOAT16 = torch.bfloat16


class NotOffered(Exception):
    """The subject has no such thing; the message says what is missing."""


class Subject(abc.ABC):
    """One way of telling positions, in a tiny random model whose attention is not uniform.

    project, version, name  who made it, and the kind of positions
    vocab, head_dim         token ids are below `vocab`; `scores` takes vectors of `head_dim` numbers
    relative                whether it promises that logits depend on distances alone; None = nothing is promised
    streams                 numbers that make a position
    bounded                 why it ends before ten million positions by design; "" = it does not

    What a subject leaves out it does not offer, and the law is not applicable.
    """

    project: str
    version: str
    name: str
    vocab: int = 61
    head_dim: int = 16
    relative: bool | None = True
    streams: int = 1
    bounded: str = ""

    @abc.abstractmethod
    def full(
        self,
        tokens_BT: Tensor,
        *,
        positions: Tensor | None = None,
        segments: Tensor | None = None,
        length: int | None = None,
    ) -> Tensor:
        """Logits [B, T, V] of one causal pass.

        positions  int64 [B or 1, T], or [B or 1, T, N]; None = counted from 0
        segments   int64 [B, T]; tokens see earlier tokens of their own segment; 0 = padding; None = all of one.
                   Given with positions that restart in every segment and are 0 for padding
        length     tokens that rules by length shall assume, where the positions do not say it
        """

    def cached(self, tokens_BT: Tensor, chunks: tuple[int, ...]) -> Tensor:
        """Logits [B, T, V] with a cache, `chunks` tokens at a time; the last size repeats until the end."""
        del tokens_BT, chunks
        raise NotOffered("no cache")

    def cast(self, dtype: torch.dtype) -> Subject:
        """A copy of the subject whose model was cast, as `model.to(dtype)` does it."""
        del dtype
        raise NotOffered("nothing to cast")

    def scores(self, q_TD: Tensor, k_TD: Tensor, positions: Tensor) -> Tensor:
        """Attention scores before the softmax, float64 [..., T, T]; entries with key after query are ignored.

        The subject's own module rotates q and k in the dtype in which they come; the product is taken in float64.
        """
        del q_TD, k_TD, positions
        raise NotOffered("no rotation and no bias")

    def exact(self, q_TD: Tensor, k_TD: Tensor, positions: Tensor) -> Tensor:
        """The same scores by the formula in float64, from the subject's frequencies."""
        del q_TD, k_TD, positions
        raise NotOffered("no formula to compare with")

    def relaid(self) -> Subject:
        """The same model with pairs in the other layout and the rows of its projections permuted."""
        raise NotOffered("one layout of pairs")


@dataclass(frozen=True, kw_only=True)
class LawResult:
    """What a law found: `value` against `limit`, and why where there is no value."""

    law: str
    status: Literal["pass", "FAIL", "n/a", "error"]
    value: float | None = None
    limit: float | None = None
    reason: str = ""

    @property
    def good(self) -> bool:
        return self.status in ("pass", "n/a")

    def __str__(self) -> str:
        number = "" if self.value is None else f"{self.value:.1e}"
        return " ".join(part for part in (self.status, number, self.reason and f"({self.reason})") if part)


@dataclass(frozen=True)
class Law:
    """One invariance: its number as people count them, a short name, a sentence, its limit, and how to measure it."""

    number: int
    name: str
    says: str
    limit: float
    of: Callable[[Subject], float]


def measure_gap(got: Tensor, expected: Tensor) -> float:
    """Largest difference of logits in standard deviations of `expected`; NaN where a logit is not finite."""
    if not (bool(got.isfinite().all()) and bool(expected.isfinite().all())):
        return math.nan
    return ((got.double() - expected.double()).abs().max() / expected.double().std()).item()


def take_worst(values: list[float]) -> float:
    """The largest value; NaN if one is."""
    return math.nan if any(math.isnan(value) for value in values) else max(values)


def make_subject_tokens(subject: Subject, batch: int, tokens: int, seed: int = 0) -> Tensor:
    return torch.randint(subject.vocab, (batch, tokens), generator=torch.Generator().manual_seed(seed))


def cached_is_full(subject: Subject) -> float:
    """A prompt and then one token at a time with a cache, against one pass."""
    tokens = make_subject_tokens(subject, 2, TOKENS)
    return measure_gap(subject.cached(tokens, (SHORT, 1)), subject.full(tokens))


def batched_is_alone(subject: Subject) -> float:
    """A short row, padded on the right beside a long one, against the short row alone; and the long one too."""
    short, long = make_subject_tokens(subject, 1, SHORT, 1), make_subject_tokens(subject, 1, TOKENS, 2)
    both = torch.cat((torch.nn.functional.pad(short, (0, TOKENS - SHORT)), long))
    segments = torch.ones_like(both)
    segments[0, SHORT:] = 0
    places = torch.arange(TOKENS).expand(2, -1) * segments
    together = subject.full(both, positions=places, segments=segments)
    return take_worst(
        [measure_gap(together[:1, :SHORT], subject.full(short)), measure_gap(together[1:], subject.full(long))]
    )


def cast_keeps_positions(subject: Subject) -> float:
    """Scores of a model cast to bfloat16 against those in float32, at positions beyond 256.

    Vectors hold bfloat16 numbers. Rounding the rotated vectors once costs about 0.01; wrong positions cost 1 and more.
    """
    q, k = (x.to(BFLOAT16) for x in make_unit_vectors(64, subject.head_dim))
    spread = torch.randperm(LAST - FIRST, generator=torch.Generator().manual_seed(5))[:64].sort().values
    places = spread_over_streams(spread + FIRST, subject.streams)
    wide = subject.scores(q.float(), k.float(), places)
    errors = compute_score_errors(subject.cast(BFLOAT16).scores(q, k, places), wide)
    return errors.max().item() if bool(errors.isfinite().all()) else math.nan


def shift_changes_nothing(subject: Subject) -> float:
    """All positions moved together, in each stream alone, against the same tokens where they were."""
    tokens, places = make_subject_tokens(subject, 1, TOKENS, 3), torch.arange(TOKENS).unsqueeze(0)
    if subject.streams > 1:
        places = torch.stack([places // 5 + places % (3 + stream) for stream in range(subject.streams)], dim=-1)
    still = subject.full(tokens, positions=places, length=TOKENS)
    units = torch.eye(subject.streams, dtype=torch.long) if subject.streams > 1 else torch.ones(1, dtype=torch.long)
    steps = [unit * size for size in SHIFTS for unit in units]
    return take_worst(
        [measure_gap(subject.full(tokens, positions=places + step, length=TOKENS), still) for step in steps]
    )


def left_padded_is_not(subject: Subject) -> float:
    """A row with padding on its left, with positions that count from its first token, against the row alone."""
    row = make_subject_tokens(subject, 1, 40, 4)
    padded = torch.nn.functional.pad(row, (24, 0))
    segments = torch.nn.functional.pad(torch.ones_like(row), (24, 0))
    places = torch.nn.functional.pad(torch.arange(40).unsqueeze(0), (24, 0))
    return measure_gap(subject.full(padded, positions=places, segments=segments)[:, 24:], subject.full(row))


def packed_is_separate(subject: Subject) -> float:
    """Three documents in one row, with segments and positions that restart, against each alone."""
    rows = [make_subject_tokens(subject, 1, size, 10 + i) for i, size in enumerate(DOCUMENTS)]
    segments = torch.cat([torch.full_like(row, i + 1) for i, row in enumerate(rows)], dim=1)
    places = torch.cat([torch.arange(size) for size in DOCUMENTS]).unsqueeze(0)
    together = subject.full(torch.cat(rows, dim=1), positions=places, segments=segments)
    parts = zip(together.split(DOCUMENTS, dim=1), rows, strict=True)
    return take_worst([measure_gap(part, subject.full(row)) for part, row in parts])


def layouts_agree(subject: Subject) -> float:
    """The model in its other layout of pairs, with permuted projections, against the model."""
    other, tokens = subject.relaid(), make_subject_tokens(subject, 2, TOKENS, 6)
    return measure_gap(other.full(tokens), subject.full(tokens))


def far_is_exact(subject: Subject) -> float:
    """Largest error of a score at ten million positions against float64."""
    if subject.bounded:
        raise NotOffered(subject.bounded)
    return measure_errors_at(subject, FAR)[1]


def spread_over_streams(places_T: Tensor, streams: int) -> Tensor:
    """Positions [T], or [T, N] whose N numbers are different and sum to at most the position."""
    if streams == 1:
        return places_T
    return torch.stack([places_T // streams - 3 * stream for stream in range(streams)], dim=-1).clamp_min(0)


LAWS = (
    Law(1, "cached", "decoding with a cache is the full pass", 1e-4, cached_is_full),
    Law(2, "batched", "a row beside a longer one is the row alone", 1e-4, batched_is_alone),
    Law(3, "bf16", "casting the model to bfloat16 keeps positions", 0.05, cast_keeps_positions),
    Law(4, "shift", "a joint shift changes nothing, where relative is declared", 1e-3, shift_changes_nothing),
    Law(5, "left pad", "padding on the left changes nothing", 1e-4, left_padded_is_not),
    Law(6, "packed", "packed documents are the documents alone", 1e-4, packed_is_separate),
    Law(7, "layouts", "both layouts of pairs agree after permuting the projections", 1e-4, layouts_agree),
    Law(8, "10M", "scores at 10,000,000 positions are those of float64", 1e-6, far_is_exact),
)


@torch.no_grad()
def measure_law(subject: Subject, law: Law) -> LawResult:
    """One law on one subject. What the subject raises is an error of the subject, with its message."""
    try:
        value = law.of(subject)
    except NotOffered as missing:
        return LawResult(law=law.name, status="n/a", limit=law.limit, reason=str(missing))
    except Exception as error:
        message = " ".join(str(error).split())
        reason = f"{type(error).__name__}: {message[:160]}"
        return LawResult(law=law.name, status="error", limit=law.limit, reason=reason)
    return judge_value(subject, law, value)


def judge_value(subject: Subject, law: Law, value: float) -> LawResult:
    """The status of a value; for the shift it depends on what the subject declares."""
    limit, reason, good = law.limit, "", value <= law.limit
    if law.name == "shift" and subject.relative is None:
        return LawResult(law=law.name, status="n/a", value=value, reason="neither relative nor absolute is declared")
    if law.name == "shift" and not subject.relative:
        limit, good = CHANGES, value > CHANGES
        reason = "not relative, as declared" if good else "declared absolute, and given positions change nothing"
    if math.isnan(value):
        good, reason = False, "not finite"
    return LawResult(law=law.name, status="pass" if good else "FAIL", value=value, limit=limit, reason=reason)
