"""RULER's aggregation: the words that come most often. No torch."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from aptlab.errors import ConfigError
from aptlab.evals.tasks.haystack import HaystackTexts, cache_units
from aptlab.evals.tasks.rng import KeyedRandom
from aptlab.evals.tasks.sample import Grow, PromptDraft, SyntheticTask
from aptlab.limits import Positive, PositiveInt, validate_limits

# Common words, how often each of them comes, how often each other word comes; the published ones first.
FORMS = ((10, 30, 3), (10, 10, 2), (5, 8, 2), (5, 5, 1), (3, 4, 1), (2, 3, 1))
DOTS = "...."
TERMS = 100_000  # of the zeta sum


@dataclass(frozen=True, kw_only=True)
class CommonWords(SyntheticTask):
    """A numbered list in which `common` words come `often` times each and all others `rarely` times.

    RULER's CWE (Hsieh et al. 2024, arXiv:2404.06654, section 3.3; published: 10, 30, 3). Longer prompts have more
    other words. There are at least as many others as common ones; shorter lengths take smaller numbers (`FORMS`).
    RULER puts a solved example in front, which is left out here.
    """

    published: ClassVar[int] = 120
    name: str = "cwe"
    common: PositiveInt = 10
    often: PositiveInt = 30
    rarely: PositiveInt = 3

    def __post_init__(self) -> None:
        validate_limits(self)
        if self.often <= self.rarely:
            raise ConfigError(f"{self.name}: often={self.often} must be more than rarely={self.rarely}")

    @property
    def least(self) -> int:
        return self.common

    def smaller(self) -> SyntheticTask | None:
        entries = self.common * (self.often + self.rarely)
        for common, often, rarely in FORMS:
            if common * (often + rarely) < entries and common <= self.common:
                return dataclasses.replace(self, common=common, often=often, rarely=rarely)
        return None

    def begin(self, chance: KeyedRandom, texts: HaystackTexts | None, depth: float | None) -> Grow:
        common = chance.distinct(self.common, "word")
        others = cache_units(generate_fresh_words(chance.fork("others"), common))

        def grow(n: int) -> PromptDraft:
            words = chance.fork("order", n).shuffled(common * self.often + others(n) * self.rarely)
            answers = sorted(common, key=words.index)
            return PromptDraft(
                body="Below is a numbered list of words. Some come more often than others; remember these.\n"
                + " ".join(f"{number}. {word}" for number, word in enumerate(words, start=1)),
                question=f"\nQuestion: Which {len(answers)} words come most often in the list?\n"
                f"Answer: The {len(answers)} words that come most often are",
                answer=" " + ", ".join(answers),
                answers=tuple(answers),
            )

        return grow


@dataclass(frozen=True, kw_only=True)
class FrequentWords(SyntheticTask):
    """Coded words drawn by Zipf's law: rank k comes floor(n k^-alpha / zeta(alpha)) times. Rank 1 is `....`, noise.

    RULER's FWE (Hsieh et al. 2024, arXiv:2404.06654, section 3.3; published: alpha 2, the 3 words after the dots).
    Words below the ones asked for come at least once less than these, so that the answer is one. Where a length is
    too short for the last of them to come twice, fewer are asked for.
    """

    published: ClassVar[int] = 50
    name: str = "fwe"
    alpha: Positive = 2.0
    top: PositiveInt = 3

    def __post_init__(self) -> None:
        validate_limits(self)
        if self.alpha <= 1:
            raise ConfigError(f"{self.name}: alpha={self.alpha} must be above 1, or the frequencies have no sum; try 2")

    @property
    def least(self) -> int:
        return math.ceil(2 * compute_zeta(self.alpha) * (self.top + 1) ** self.alpha + 1e-9)

    def smaller(self) -> SyntheticTask | None:
        return dataclasses.replace(self, top=self.top - 1) if self.top > 1 else None

    def counts(self, n: int) -> list[int]:
        """How often each rank comes, the dots first; the sum is a little below n."""
        counts = []
        while (often := int(n / compute_zeta(self.alpha) * (len(counts) + 1) ** -self.alpha)) > 0:
            counts.append(often if len(counts) <= self.top else min(often, counts[self.top] - 1))
        return counts

    def begin(self, chance: KeyedRandom, texts: HaystackTexts | None, depth: float | None) -> Grow:
        vocabulary = cache_units(generate_fresh_words(chance.fork("words"), []))

        def grow(n: int) -> PromptDraft:
            counts = self.counts(n)
            words = [DOTS, *(word.strip() for word in vocabulary(len(counts) - 1))]
            answers = words[1 : self.top + 1]
            text = [word for word, often in zip(words, counts) for _ in range(often)]
            several = "s" * (self.top > 1)
            return PromptDraft(
                body="Below is a coded text. Count how often each coded word comes; the dots mean nothing.\n"
                + " ".join(chance.fork("order", n).shuffled(text)),
                question=f"\nQuestion: Which {self.top} coded word{several} come most often?\n"
                f"Answer: The {self.top} coded word{several} that come most often are",
                answer=" " + ", ".join(answers),
                answers=tuple(answers),
            )

        return grow


def generate_fresh_words(chance: KeyedRandom, taken: list[str]) -> Iterator[str]:
    """Made-up words without end, each of them once, none of them in `taken`."""
    seen = set(taken)
    while True:
        word = chance.word()
        if word not in seen:
            seen.add(word)
            yield word


@functools.cache
def compute_zeta(alpha: float) -> float:
    """The sum of k^-alpha, its tail by the integral (Euler and Maclaurin)."""
    tail = TERMS ** (1 - alpha) / (alpha - 1) + 0.5 * TERMS**-alpha
    return math.fsum(k**-alpha for k in range(1, TERMS)) + tail
