"""The search itself: critical pair, first population, iterations. A pure function of its arguments. No torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aptlab.search.evaluation_cache import CurvePoint, EvaluationCache
from aptlab.search.evolution import begin_population, make_iteration_rng
from aptlab.search.settings import SearchSettings
from aptlab.search.space import Factors, Genome, SearchSpace
from aptlab.search.strategies import Strategy


@dataclass(frozen=True)
class SearchStart:
    """One space and the genomes in it that a search begins with."""

    space: SearchSpace
    seeds: tuple[Genome, ...]


@dataclass(frozen=True)
class SearchResult:
    """The best factors, their score, the first searched pair, and what it took to find them.

    `iterations` counts those that were run; `candidates` all that were thought of.
    """

    factors: Factors
    score: float
    first: int
    tokens: int
    iterations: int
    candidates: int
    curve: tuple[CurvePoint, ...]


@dataclass(frozen=True)
class SearchState:
    """How far a search is, told after every iteration; iteration 0 is the first population."""

    iteration: int
    iterations: int
    tokens: int
    best: CurvePoint
    first: int


Watch = Callable[[SearchState], None]


def search_factors(
    starts: Sequence[SearchStart],
    *,
    settings: SearchSettings,
    strategy: Strategy,
    cache: EvaluationCache,
    seed: int = 0,
    watch: Watch | None = None,
) -> SearchResult:
    """Search in the most promising of the spaces.

    Several starts are compared by the best score among their seeds: the search for the real critical pair of
    LongRoPE2. Random numbers of iteration i depend on (seed, i) alone, and scores are remembered by `cache`, so the
    same calls of `cache.evaluate` come in the same order whenever it is run.
    """
    start = choose_start(starts, strategy, cache)
    space, rng = start.space, make_iteration_rng(seed, 0)
    named = {space.factors(genome): genome for genome in begin_population(settings, space, start.seeds, rng)}
    strategy.measure(cache, list(named))
    iteration = 0
    notify_watch(watch, iteration, settings, cache, space)
    while iteration < settings.iterations:
        iteration += 1
        estimates = strategy.estimates(cache, list(named))
        known = dict(zip(named.values(), estimates, strict=True))
        children = strategy.children(settings, space, cache, known, make_iteration_rng(seed, iteration))
        if not children:
            break
        earlier = list(named)
        named |= {space.factors(genome): genome for genome in children}
        strategy.measure(cache, [space.factors(genome) for genome in children], earlier)
        notify_watch(watch, iteration, settings, cache, space)
    score, factors = next(pair for pair in cache.complete() if pair[1] in named)
    return SearchResult(
        factors=factors,
        score=score,
        first=space.first,
        tokens=cache.tokens,
        iterations=iteration,
        candidates=len(named),
        curve=tuple(cache.curve),
    )


def choose_start(starts: Sequence[SearchStart], strategy: Strategy, cache: EvaluationCache) -> SearchStart:
    """The start whose seeds hold the best complete score; ties go to the earlier one."""
    if len(starts) == 1:
        return starts[0]
    owner = {start.space.factors(seed): i for i, start in reversed(list(enumerate(starts))) for seed in start.seeds}
    strategy.measure(cache, list(owner))
    scores = [(score, i) for factors, i in owner.items() if (score := cache.score(factors)) is not None]
    return starts[min(scores)[1]]


def notify_watch(
    watch: Watch | None, iteration: int, settings: SearchSettings, cache: EvaluationCache, space: SearchSpace
) -> None:
    """Tell how far the search is."""
    if watch is not None and cache.best is not None:
        watch(SearchState(iteration, settings.iterations, cache.tokens, cache.best, space.first))
