"""What a search may be told; the published values are the defaults. No torch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal, NamedTuple

from aptlab.errors import ConfigError
from aptlab.limits import Fraction, NonNegativeInt, Positive, PositiveInt, validate_limits


class BroodSizes(NamedTuple):
    """Candidates of an iteration: the best ones that have children, and how many children of each kind."""

    parents: int
    mutations: int
    crossovers: int


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """How factors are searched (LongRoPE, arXiv:2402.13753; LongRoPE2, arXiv:2502.20082).

    objective    needle_ppl (loss of a hidden number), ppl (loss of long text), mixed (both, over YaRN's);
                 None = as published: ppl for rope=longrope, needle_ppl for rope=longrope2
    strategy     halving (ours: candidates are read in part first) or published (all of them in full)
    samples      texts of the target length; 5 in LongRoPE, 10 in LongRoPE2
    population   candidates at first; then `iterations` times `mutations` + `crossovers` children of the best `parents`;
                 null: half of the population are parents, a quarter each comes by mutation and crossover (published)
    probability  of each factor to change
    step         grid of the factors
    """

    objective: Literal["needle_ppl", "ppl", "mixed"] | None = None
    strategy: Literal["halving", "published"] = "halving"
    samples: PositiveInt = 10
    population: PositiveInt = 64
    iterations: NonNegativeInt = 40
    mutations: NonNegativeInt | None = None
    crossovers: NonNegativeInt | None = None
    parents: PositiveInt | None = None
    probability: Fraction = 0.3
    step: Positive = 0.01

    def __post_init__(self) -> None:
        validate_limits(self)
        if self.iterations and not self.brood.mutations + self.brood.crossovers:
            raise ConfigError("mutations=0 with crossovers=0 makes no new candidates; published: 16, 16")
        if self.brood.parents > self.population:
            raise ConfigError(f"parents={self.parents} is more than population={self.population}; published: 32 of 64")

    @property
    def brood(self) -> BroodSizes:
        """The sizes that were given, else their published share of the population."""
        half, quarter = max(1, self.population // 2), max(1, self.population // 4)
        return BroodSizes(
            parents=half if self.parents is None else self.parents,
            mutations=quarter if self.mutations is None else self.mutations,
            crossovers=quarter if self.crossovers is None else self.crossovers,
        )

    def plain(self) -> dict[str, object]:
        """Everything as a number or a word, by which a search is told from another one."""
        return {**dataclasses.asdict(self), **self.brood._asdict()}
