"""A search with a known answer: distance to hidden factors, seen through samples that each err in their own way."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from aptlab.search.engine import SearchStart
from aptlab.search.evaluation_cache import SearchJob, Values
from aptlab.search.seeds import build_v1_space, compute_published_factors

PAIRS, SCALE, TARGET, SAMPLES = 16, 4.0, 768, 10
SPACE = build_v1_space(pairs=PAIRS, scale=SCALE, step=0.01)
KNOWN = compute_published_factors(base=10_000, head_dim=2 * PAIRS, original_len=192, scale=SCALE)
GOAL = SPACE.factors(SPACE.nearest([max(1.0, 0.8 * factor + i / 20) for i, factor in enumerate(KNOWN["yarn"])]))


class Hidden:
    """Runs jobs; `calls` holds all of them."""

    def __init__(self, noise: float = 0.02) -> None:
        self.noise = noise
        self.calls: list[SearchJob] = []

    def value(self, job: SearchJob, sample: int) -> float:
        rng = random.Random(f"{job.length} {sample}")
        goal = [math.log(g) + rng.gauss(0, self.noise) for g in GOAL]
        return sum((math.log(f) - g) ** 2 for f, g in zip(job.factors, goal, strict=True))

    def run(self, jobs: Sequence[SearchJob]):
        for number, job in enumerate(jobs):
            self.calls.append(job)
            yield number, tuple(self.value(job, sample) for sample in job.samples)

    def __call__(self, jobs: Sequence[SearchJob]) -> list[Values]:
        return [values for _, values in self.run(jobs)]


def starts() -> list[SearchStart]:
    return [SearchStart(SPACE, tuple(dict.fromkeys(SPACE.nearest(f) for f in KNOWN.values())))]
