"""What has been measured, and what it cost. No torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from aptlab.search.space import Factors


@dataclass(frozen=True)
class SearchJob:
    """Measure `factors` on the samples with these numbers out of those that are `length` tokens long."""

    factors: Factors
    length: int
    samples: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """Tokens that the network reads."""
        return self.length * len(self.samples)


Values = tuple[float, ...]  # the objective on each sample of a job, less is better
Evaluate = Callable[[Sequence[SearchJob]], Sequence[Values]]


@dataclass(frozen=True)
class CurvePoint:
    """The best complete score after `tokens` evaluated tokens."""

    tokens: int
    score: float
    factors: Factors


@dataclass
class EvaluationCache:
    """Scores of candidates. A complete score is the mean over all `samples` of `target` tokens.

    A sample is measured once per candidate and counted once, whether `evaluate` computes it or reads it from a
    journal: so a continued search counts like one that was never stopped.
    """

    evaluate: Evaluate
    target: int
    samples: int
    tokens: int = 0
    jobs: int = 0
    curve: list[CurvePoint] = field(default_factory=list)
    _values: dict[tuple[Factors, int], dict[int, float]] = field(default_factory=dict)
    _complete: dict[Factors, float] = field(default_factory=dict)

    @property
    def best(self) -> CurvePoint | None:
        """The best complete score so far."""
        return self.curve[-1] if self.curve else None

    @property
    def all(self) -> tuple[int, ...]:
        """The numbers of all samples."""
        return tuple(range(self.samples))

    def scores(
        self, candidates: Sequence[Factors], *, length: int | None = None, samples: Sequence[int] | None = None
    ) -> Values:
        """Mean of each candidate over `samples` (default all) of `length` tokens (default the target)."""
        length, chosen = length or self.target, self.all if samples is None else tuple(samples)
        jobs = [job for factors in dict.fromkeys(candidates) if (job := self._missing(factors, length, chosen)).samples]
        for job, values in zip(jobs, self.evaluate(jobs) if jobs else (), strict=True):
            self._note(job, values)
        if (length, chosen) == (self.target, self.all):
            for factors in candidates:
                self._rank(factors)
        return tuple(self._mean(factors, length, chosen) for factors in candidates)

    def values(self, factors: Factors, length: int) -> dict[int, float]:
        """What is known of a candidate, by sample."""
        return self._values.get((factors, length), {})

    def mean(self, factors: Factors, length: int, samples: Sequence[int]) -> float | None:
        """The mean over `samples` of a length where all of them have been measured."""
        values = self.values(factors, length)
        return self._mean(factors, length, samples) if all(i in values for i in samples) else None

    def complete(self) -> list[tuple[float, Factors]]:
        """All complete scores, best first."""
        return sorted((score, factors) for factors, score in self._complete.items())

    def score(self, factors: Factors) -> float | None:
        """The complete score, where there is one."""
        return self._complete.get(factors)

    def _missing(self, factors: Factors, length: int, samples: Sequence[int]) -> SearchJob:
        known = self.values(factors, length)
        return SearchJob(factors, length, tuple(i for i in samples if i not in known))

    def _note(self, job: SearchJob, values: Values) -> None:
        scores = self._values.setdefault((job.factors, job.length), {})
        for sample, value in zip(job.samples, values, strict=True):
            scores[sample] = value if math.isfinite(value) else math.inf
        self.tokens += job.tokens
        self.jobs += 1

    def _mean(self, factors: Factors, length: int, samples: Sequence[int]) -> float:
        values = self._values[factors, length]
        return math.fsum(values[i] for i in samples) / len(samples)

    def _rank(self, factors: Factors) -> None:
        score = self._complete.setdefault(factors, self._mean(factors, self.target, self.all))
        if not self.curve or score < self.curve[-1].score:
            self.curve.append(CurvePoint(self.tokens, score, factors))
