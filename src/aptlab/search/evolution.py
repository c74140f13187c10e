"""How new candidates come from old ones (LongRoPE, section 3 and appendix; arXiv:2402.13753). No torch."""

from __future__ import annotations

import random
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass

from aptlab.search.settings import SearchSettings
from aptlab.search.space import Genome, SearchSpace

TRIES = 50


def make_iteration_rng(seed: int, iteration: int) -> random.Random:
    """The random numbers of one iteration; text seeds give the same numbers on every machine and version."""
    return random.Random(f"aptlab search {seed} {iteration}")


def begin_population(
    settings: SearchSettings, space: SearchSpace, seeds: Sequence[Genome], rng: random.Random
) -> list[Genome]:
    """The first candidates: the seeds, then mutations of them."""
    found = dict.fromkeys(seeds)
    for _ in range(TRIES * settings.population):
        if len(found) >= settings.population:
            break
        found.setdefault(space.mutate(rng.choice(seeds), rng, settings.probability))
    return list(found)[: max(settings.population, len(seeds))]


def breed_children(
    settings: SearchSettings,
    space: SearchSpace,
    parents: Sequence[Genome],
    known: Container[Genome],
    rng: random.Random,
) -> list[Genome]:
    """Mutations, then crossovers, none of which is in `known`; a crossover that finds nothing new mutates."""
    breeder = Breeder(space, parents, rng, settings.probability)
    sources = [(breeder.mutate, settings.brood.mutations), (breeder.cross, settings.brood.crossovers)]
    return collect_new_genomes(sources, breeder.mutate, known)


def breed_steps(
    settings: SearchSettings,
    space: SearchSpace,
    parents: Sequence[Genome],
    known: Container[Genome],
    rng: random.Random,
) -> list[Genome]:
    """As many children, of which half go on along the line from a worse to a better parent; ours.

    `parents` come best first.
    """
    breeder = Breeder(space, parents, rng, settings.probability)
    count = settings.brood.mutations + settings.brood.crossovers
    quarter = count // 4
    sources = [(breeder.mutate, quarter), (breeder.cross, quarter), (breeder.step, count - 2 * quarter)]
    return collect_new_genomes(sources, breeder.mutate, known)


@dataclass(frozen=True)
class Breeder:
    """The ways to a new genome out of some parents, each with the random numbers of `rng`."""

    space: SearchSpace
    parents: Sequence[Genome]
    rng: random.Random
    probability: float

    def mutate(self) -> Genome:
        """A parent with some factors changed."""
        return self.space.mutate(self.rng.choice(self.parents), self.rng, self.probability)

    def cross(self) -> Genome:
        """A mixture of two parents."""
        first, second = self.rng.choice(self.parents), self.rng.choice(self.parents)
        return self.space.cross(first, second, self.rng, self.probability)

    def step(self) -> Genome:
        """p + u (a - b) with a better than b and u in [0, 1], moved to the nearest legal genome.

        As in differential evolution (Storn and Price 1997). The parents come best first.
        """
        rng, parents = self.rng, self.parents
        good, bad = sorted(rng.choices(range(len(parents)), k=2))
        start = parents[min(rng.choices(range(len(parents)), k=2))]
        u = rng.random()
        moved = (p + u * (a - b) for p, a, b in zip(start, parents[good], parents[bad]))
        return self.space.repaired([round(k) for k in moved])


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
