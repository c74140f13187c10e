"""Which factors a search may propose. No torch.

A factor divides the frequency of one rotary pair. Factors lie on a grid low + k · step; a genome holds the numbers k
of the pairs that are searched, slow pairs last, so that equal candidates are equal integers. Genomes rise with the
pair: a slower pair is never stretched less.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from aptlab.errors import ConfigError

Genome = tuple[int, ...]
Factors = tuple[float, ...]
DIGITS = 10  # decimals of a factor; takes the noise out of low + k · step
TRIES = 64


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """Factors of `pairs` rotary pairs, of which those from `first` on are searched.

    low, high, step  the grid
    first            pairs i before it follow by NTK: lambda_i = lambda_first^(i / first) (LongRoPE2, section 3)
    strict           each pair exceeds the one before it; False = it may equal it
    rise             the last pair exceeds the one before it by at most this much
    """

    pairs: int
    low: float
    high: float
    step: float = 0.01
    first: int = 0
    strict: bool = False
    rise: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.first < self.pairs:
            raise ConfigError(f"first={self.first}: the {self.pairs} pairs are numbered from 0 to {self.pairs - 1}")
        if self.top < (self.genes - 1) * self.strict:
            raise ConfigError(
                f"search.step={self.step} leaves {max(self.top, -1) + 1} factors between {self.low:g} and "
                f"{self.high:g} for {self.genes} pairs; largest: "
                f"{(self.high - self.low) / max(self.genes - self.strict, 1):.4g}"
            )

    @property
    def genes(self) -> int:
        """Pairs that are searched."""
        return self.pairs - self.first

    @property
    def top(self) -> int:
        """The largest number of the grid."""
        return int((self.high - self.low) / self.step + 1e-6)

    def factors(self, genome: Genome) -> Factors:
        """The divisors of all pairs."""
        searched = [round(self.low + k * self.step, DIGITS) for k in genome]
        below = [searched[0] ** (i / self.first) for i in range(self.first)]
        return (*below, *searched)

    def legal(self, genome: Genome) -> bool:
        """Whether a genome lies in the grid and rises as it has to."""
        if len(genome) != self.genes or genome[0] < 0 or genome[-1] > self.top:
            return False
        if any(b - a < self.strict for a, b in pairwise(genome)):
            return False
        return self.genes < 2 or genome[-1] - genome[-2] <= self._rise

    def nearest(self, values: Sequence[float]) -> Genome:
        """The genome for wished factors of all pairs: moved up to rise, then down to fit below `high`."""
        return self.repaired([round((value - self.low) / self.step) for value in values[self.first :]])

    def repaired(self, genes: list[int]) -> Genome:
        """The same for numbers of the grid."""
        gap = int(self.strict)
        for i, gene in enumerate(genes):
            genes[i] = min(max(gene, 0 if i == 0 else genes[i - 1] + gap), self.top)
        limit = self.top
        for i in reversed(range(len(genes))):
            genes[i] = limit = min(genes[i], limit)
            limit -= gap
        if len(genes) > 1:
            genes[-1] = min(genes[-1], genes[-2] + self._rise)
        return tuple(genes)

    def mutate(self, genome: Genome, rng: random.Random, probability: float) -> Genome:
        """Draw each gene anew with this probability, uniformly between its neighbours, the earlier one first."""
        gap = int(self.strict)
        for _ in range(TRIES):
            genes = list(genome)
            for i in range(len(genes)):
                if rng.random() < probability:
                    low = genes[i - 1] + gap if i else 0
                    genes[i] = rng.randint(low, max(low, self._ceiling(genes, i, gap)))
            if self.legal(tuple(genes)):
                return tuple(genes)
        return genome

    def cross(self, first: Genome, second: Genome, rng: random.Random, probability: float) -> Genome:
        """`first` with each gene of `second` taken with this probability where the order allows it."""
        child = first
        for i, gene in enumerate(second):
            if rng.random() < probability:
                tried = (*child[:i], gene, *child[i + 1 :])
                child = tried if self.legal(tried) else child
        return child

    def _ceiling(self, genes: list[int], i: int, gap: int) -> int:
        if i + 1 < len(genes):
            return genes[i + 1] - gap
        return min(self.top, genes[i - 1] + self._rise) if i else self.top

    @property
    def _rise(self) -> int:
        return self.top if self.rise is None else round(self.rise / self.step)
