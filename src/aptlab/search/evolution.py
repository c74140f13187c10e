"""How new candidates come from old ones (LongRoPE, section 3 and appendix; arXiv:2402.13753). No torch."""

from __future__ import annotations

import random
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass

from aptlab.errors import ConfigError
from aptlab.limits import Fraction, NonNegativeInt, PositiveInt, validate_limits
from aptlab.search.space import Genome, SearchSpace

TRIES = 50


def make_iteration_rng(seed: int, iteration: int) -> random.Random:
    """The random numbers of one iteration; text seeds give the same numbers on every machine and version."""
    return random.Random(f"aptlab search {seed} {iteration}")


@dataclass(frozen=True, kw_only=True)
class Evolution:
    """Published sizes: 64 candidates at first, then 40 times 16 mutations and 16 crossovers of the best 32."""

    population: PositiveInt = 64
    iterations: NonNegativeInt = 40
    mutations: NonNegativeInt = 16
    crossovers: NonNegativeInt = 16
    parents: PositiveInt = 32
    probability: Fraction = 0.3

    def __post_init__(self) -> None:
        validate_limits(self)
        if self.iterations and not self.mutations + self.crossovers:
            raise ConfigError("mutations=0 with crossovers=0 makes no new candidates; published: 16, 16")
        if self.parents > self.population:
            raise ConfigError(f"parents={self.parents} is more than population={self.population}; published: 32 of 64")

    def begin(self, space: SearchSpace, seeds: Sequence[Genome], rng: random.Random) -> list[Genome]:
        """The first candidates: the seeds, then mutations of them."""
        found = dict.fromkeys(seeds)
        for _ in range(TRIES * self.population):
            if len(found) >= self.population:
                break
            found.setdefault(space.mutate(rng.choice(seeds), rng, self.probability))
        return list(found)[: max(self.population, len(seeds))]

    def children(
        self, space: SearchSpace, parents: Sequence[Genome], known: Container[Genome], rng: random.Random
    ) -> list[Genome]:
        """Mutations, then crossovers, none of which is in `known`; a crossover that finds nothing new mutates."""

        def mutation() -> Genome:
            return space.mutate(rng.choice(parents), rng, self.probability)

        def crossover() -> Genome:
            return space.cross(rng.choice(parents), rng.choice(parents), rng, self.probability)

        return collect_new_genomes([(mutation, self.mutations), (crossover, self.crossovers)], mutation, known)

    def steps(
        self, space: SearchSpace, parents: Sequence[Genome], known: Container[Genome], rng: random.Random
    ) -> list[Genome]:
        """As many children, of which half go on along the line from a worse to a better parent; ours.

        `parents` come best first. A step is p + u (a - b) with a better than b and u in [0, 1], as in differential
        evolution (Storn and Price 1997), moved to the nearest legal genome.
        """

        def mutation() -> Genome:
            return space.mutate(rng.choice(parents), rng, self.probability)

        def crossover() -> Genome:
            return space.cross(rng.choice(parents), rng.choice(parents), rng, self.probability)

        def step() -> Genome:
            good, bad = sorted(rng.choices(range(len(parents)), k=2))
            start = parents[min(rng.choices(range(len(parents)), k=2))]
            u = rng.random()
            moved = (p + u * (a - b) for p, a, b in zip(start, parents[good], parents[bad]))
            return space.repaired([round(k) for k in moved])

        quarter = (self.mutations + self.crossovers) // 4
        rest = self.mutations + self.crossovers - 2 * quarter
        return collect_new_genomes([(mutation, quarter), (crossover, quarter), (step, rest)], mutation, known)


def collect_new_genomes(
    sources: Sequence[tuple[Callable[[], Genome], int]], spare: Callable[[], Genome], known: Container[Genome]
) -> list[Genome]:
    """So many genomes of each source, none twice and none in `known`; `spare` helps where a source has nothing new."""
    found: dict[Genome, None] = {}
    for source, count in sources:
        for _ in range(count):
            for attempt in range(TRIES):
                child = source() if attempt < TRIES // 2 else spare()
                if child not in known and child not in found:
                    found[child] = None
                    break
    return list(found)
