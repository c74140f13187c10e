"""The search itself: critical pair, first population, iterations. A pure function of its arguments. No torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aptlab.search.book import Book, Point
from aptlab.search.evolution import Evolution, generator
from aptlab.search.space import Factors, Genome, Space
from aptlab.search.strategies import Strategy


@dataclass(frozen=True)
class Start:
    """One space and the genomes in it that a search begins with."""

    space: Space
    seeds: tuple[Genome, ...]


@dataclass(frozen=True)
class Found:
    """The best factors, their score, the first searched pair, and what it took to find them.

    `iterations` counts those that were run; `candidates` all that were thought of.
    """

    factors: Factors
    score: float
    first: int
    tokens: int
    iterations: int
    candidates: int
    curve: tuple[Point, ...]


@dataclass(frozen=True)
class State:
    """How far a search is, told after every iteration; iteration 0 is the first population."""

    iteration: int
    iterations: int
    tokens: int
    best: Point
    first: int


Watch = Callable[[State], None]


def search(
    starts: Sequence[Start],
    *,
    evolution: Evolution,
    strategy: Strategy,
    book: Book,
    seed: int = 0,
    watch: Watch | None = None,
) -> Found:
    """Search in the most promising of the spaces.

    Several starts are compared by the best score among their seeds: the search for the real critical pair of
    LongRoPE2. Random numbers of iteration i depend on (seed, i) alone, and scores are remembered by `book`, so the
    same calls of `book.evaluate` come in the same order whenever it is run.
    """
    start = settle(starts, strategy, book)
    space, rng = start.space, generator(seed, 0)
    named = {space.factors(genome): genome for genome in evolution.begin(space, start.seeds, rng)}
    strategy.measure(book, list(named))
    iteration = 0
    tell(watch, iteration, evolution, book, space)
    while iteration < evolution.iterations:
        iteration += 1
        estimates = strategy.estimates(book, list(named))
        known = dict(zip(named.values(), estimates, strict=True))
        children = strategy.children(evolution, space, book, known, generator(seed, iteration))
        if not children:
            break
        earlier = list(named)
        named |= {space.factors(genome): genome for genome in children}
        strategy.measure(book, [space.factors(genome) for genome in children], earlier)
        tell(watch, iteration, evolution, book, space)
    score, factors = next(pair for pair in book.complete() if pair[1] in named)
    return Found(
        factors=factors,
        score=score,
        first=space.first,
        tokens=book.tokens,
        iterations=iteration,
        candidates=len(named),
        curve=tuple(book.curve),
    )


def settle(starts: Sequence[Start], strategy: Strategy, book: Book) -> Start:
    """The start whose seeds hold the best complete score; ties go to the earlier one."""
    if len(starts) == 1:
        return starts[0]
    owner = {start.space.factors(seed): i for i, start in reversed(list(enumerate(starts))) for seed in start.seeds}
    strategy.measure(book, list(owner))
    scores = [(score, i) for factors, i in owner.items() if (score := book.score(factors)) is not None]
    return starts[min(scores)[1]]


def tell(watch: Watch | None, iteration: int, evolution: Evolution, book: Book, space: Space) -> None:
    if watch is not None and book.best is not None:
        watch(State(iteration, evolution.iterations, book.tokens, book.best, space.first))
