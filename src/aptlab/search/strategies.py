"""How much is spent on a candidate before it is dropped. No torch."""

from __future__ import annotations

import abc
import dataclasses
import math
import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aptlab.errors import ConfigError, suggest_option
from aptlab.limits import Fraction, PositiveInt, validate_limits
from aptlab.search.evaluation_cache import EvaluationCache
from aptlab.search.evolution import breed_children, breed_steps
from aptlab.search.settings import SearchSettings
from aptlab.search.space import Factors, Genome, SearchSpace
from aptlab.search.surrogate import select_promising

FITTED = 64  # complete scores, the best ones, through which the line goes
TOLD = 0.9
SLOPE = 0.1  # a better look never means a worse guess


class Strategy(abc.ABC):
    """Chooses what is measured of the candidates of one iteration, and tells how good any candidate looks."""

    def __post_init__(self) -> None:
        validate_limits(self)

    def children(
        self,
        settings: SearchSettings,
        space: SearchSpace,
        cache: EvaluationCache,
        known: Mapping[Genome, float],
        rng: random.Random,
    ) -> list[Genome]:
        """The candidates of the next iteration; `known` are the estimates of all candidates so far."""
        del cache
        return breed_children(settings, space, rank_genomes(known)[: settings.brood.parents], known, rng)

    def fitted(self, target: int, least: int) -> Strategy:
        """The strategy for samples of `target` tokens that need `least` to make sense."""
        del target, least
        return self

    @property
    def lengths(self) -> tuple[int, ...]:
        """What the target is divided by for the samples that are read."""
        return (1,)

    @abc.abstractmethod
    def measure(
        self, cache: EvaluationCache, candidates: Sequence[Factors], earlier: Sequence[Factors] | None = None
    ) -> None:
        """Measure the candidates as far as they deserve it.

        earlier  those of the iterations before, which may be measured further; None = there were none
        """

    @abc.abstractmethod
    def estimates(self, cache: EvaluationCache, candidates: Sequence[Factors]) -> list[float]:
        """The complete score of each candidate, or what it would be by what has been measured."""


@dataclass(frozen=True, kw_only=True)
class PublishedStrategy(Strategy):
    """Every candidate is measured on every sample, as in both papers."""

    def measure(
        self, cache: EvaluationCache, candidates: Sequence[Factors], earlier: Sequence[Factors] | None = None
    ) -> None:
        """See Strategy."""
        del earlier
        cache.scores(candidates)

    def estimates(self, cache: EvaluationCache, candidates: Sequence[Factors]) -> list[float]:
        """See Strategy."""
        return list(cache.scores(candidates))


@dataclass(frozen=True, kw_only=True)
class HalvingStrategy(Strategy):
    """Successive halving (Jamieson and Talwalkar 2016, arXiv:1502.07943) inside every iteration; our own variant.

    1. For each child of the published search `proposals` are made, and the most promising of all are measured, as
       guessed from all earlier scores (`select_promising`): guessing costs no tokens. The first candidates, of which
       nothing can be guessed, are read in a version of target / `shorter` tokens instead, whose positions are spread
       over the target length (skipped between pieces as in PoSE, Zhu et al. 2023, arXiv:2309.10400).
    2. They are read on at most `part` of the samples: those that tell the good candidates apart.
    3. The best, as many as 1/`keep` of these, are read on the rest, which makes their score complete.

    An iteration measures as many as cost `share` of what a published iteration of the same size costs.

    Those that stop early stay possible parents: their complete score is estimated by the line of least squares through
    the candidates that have both numbers. Without them the search would lose the variety that it lives on; and one of
    them is finished later if it still looks best then. Because no loss is negative, a candidate whose losses already
    sum to more than those of many complete ones cannot become better than these, and is not finished.
    """

    share: Fraction = 0.22
    proposals: PositiveInt = 16
    shorter: PositiveInt = 4
    part: Fraction = 0.4
    keep: PositiveInt = 4

    def children(
        self,
        settings: SearchSettings,
        space: SearchSpace,
        cache: EvaluationCache,
        known: Mapping[Genome, float],
        rng: random.Random,
    ) -> list[Genome]:
        """See Strategy."""
        more = dataclasses.replace(
            settings,
            mutations=settings.brood.mutations * self.proposals,
            crossovers=settings.brood.crossovers * self.proposals,
        )
        proposed = breed_steps(more, space, rank_genomes(known)[: settings.brood.parents], known, rng)
        named = {space.factors(genome): genome for genome in proposed}
        read = len(self.telling(cache))
        each = read + (cache.samples - read) / self.keep
        count = int(self.share * (settings.brood.mutations + settings.brood.crossovers) * cache.samples / each)
        seen = [space.factors(genome) for genome in known]
        chosen = select_promising(list(named), max(count, 1), seen, list(known.values()))
        return [named[factors] for factors in chosen]

    def measure(
        self, cache: EvaluationCache, candidates: Sequence[Factors], earlier: Sequence[Factors] | None = None
    ) -> None:
        """See Strategy."""
        left = list(dict.fromkeys(candidates))
        if earlier is None and self.shorter > 1:
            cache.scores(left, length=cache.target // self.shorter, samples=self.telling(cache))
            left = select_best(left, self.estimates(cache, left), math.ceil(len(left) / self.keep))
        cache.scores(left, samples=self.telling(cache))
        count = math.ceil(len(left) / self.keep)
        left += [f for f in earlier or () if cache.score(f) is None and cache.values(f, cache.target)]
        left = select_best(left, self.estimates(cache, left), count)
        if hopeful := [factors for factors in left if not self.hopeless(cache, factors)]:
            cache.scores(hopeful)

    def hopeless(self, cache: EvaluationCache, factors: Factors) -> bool:
        """Whether the losses measured so far already sum to more than those of the FITTED best complete candidates."""
        good = cache.complete()
        return len(good) >= FITTED and math.fsum(cache.values(factors, cache.target).values()) >= (
            good[FITTED - 1][0] * cache.samples
        )

    def fitted(self, target: int, least: int) -> Strategy:
        """See Strategy: samples are shortened less, or not at all, where a needle would not fit."""
        shorter = next((n for n in (self.shorter, 2) if n <= self.shorter and target // n >= 2 * least), 1)
        return dataclasses.replace(self, shorter=shorter)

    @property
    def lengths(self) -> tuple[int, ...]:
        """See Strategy."""
        return tuple(dict.fromkeys((1, self.shorter)))

    def telling(self, cache: EvaluationCache) -> tuple[int, ...]:
        """The samples that hold TOLD of the variance of the best complete candidates, at most `part` of all.

        Evenly spread ones while fewer than three candidates are complete.
        """
        most = min(max(math.ceil(self.part * cache.samples), 1), cache.samples)
        good = [cache.values(factors, cache.target) for score, factors in cache.complete()[:FITTED] if score < math.inf]
        if len(good) < 3:
            return tuple(sorted({i * cache.samples // most for i in range(most)}))
        spread = {i: statistics.pvariance([scores[i] for scores in good]) for i in cache.all}
        ordered, chosen = sorted(cache.all, key=lambda i: (-spread[i], i)), []
        while len(chosen) < most and sum(spread[i] for i in chosen) <= TOLD * sum(spread.values()):
            chosen.append(ordered[len(chosen)])
        return tuple(sorted(chosen))

    def estimates(self, cache: EvaluationCache, candidates: Sequence[Factors]) -> list[float]:
        """See Strategy."""
        good = cache.complete()[:FITTED]
        lines: dict[tuple[int, tuple[int, ...]], list[tuple[float, float]]] = {}
        found = []
        for factors in candidates:
            length = cache.target if cache.values(factors, cache.target) else cache.target // self.shorter
            samples = tuple(sorted(cache.values(factors, length)))
            if (length, samples) not in lines:
                both = ((cache.mean(other, length, samples), score) for score, other in good)
                lines[length, samples] = [(x, y) for x, y in both if x is not None]
            x = cache.mean(factors, length, samples)
            assert x is not None
            found.append(
                x if (length, samples) == (cache.target, cache.all) else predict_on_line(x, lines[length, samples])
            )
        return found


def predict_on_line(x: float, pairs: Sequence[tuple[float, float]]) -> float:
    """The value at `x` of the line of least squares through `pairs`, which never falls; `x` itself without any."""
    finite = [(a, b) for a, b in pairs if math.isfinite(a) and math.isfinite(b)]
    if not finite or not math.isfinite(x):
        return x
    x_mean, y_mean = (math.fsum(column) / len(finite) for column in zip(*finite))
    spread = math.fsum((a - x_mean) ** 2 for a, _ in finite)
    slope = math.fsum((a - x_mean) * (b - y_mean) for a, b in finite) / spread if spread > 0 else 1.0
    return y_mean + max(slope, SLOPE) * (x - x_mean)


def select_best(candidates: Sequence[Factors], scores: Sequence[float], count: int) -> list[Factors]:
    """The `count` candidates with the lowest scores; ties go to the smaller factors."""
    return [factors for _, factors in sorted(zip(scores, candidates))[:count]]


def rank_genomes(known: Mapping[Genome, float]) -> list[Genome]:
    """Genomes by their estimates, best first."""
    return sorted(known, key=lambda genome: (known[genome], genome))


STRATEGIES: dict[str, type[Strategy]] = {"published": PublishedStrategy, "halving": HalvingStrategy}


def get_strategy(name: str) -> Strategy:
    """The strategy of this name; ConfigError names the others."""
    if name not in STRATEGIES:
        raise ConfigError(f"strategy={name}: no such strategy{suggest_option(name, STRATEGIES)}")
    return STRATEGIES[name]()
