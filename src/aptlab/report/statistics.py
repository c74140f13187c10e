"""Means over seeds with honest intervals (Student 1908, "The probable error of a mean")."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class ConfidenceInterval:
    """A mean over `n` values and the half width of its 95 % interval (None for one value: nothing is known).

    `missing` counts values that were not finite (a diverged run) and are left out of the mean.
    """

    mean: float
    half: float | None
    n: int
    missing: int = 0

    @property
    def low(self) -> float:
        """The lower end; the mean itself without an interval."""
        return self.mean - (self.half or 0.0)

    @property
    def high(self) -> float:
        """The upper end; the mean itself without an interval."""
        return self.mean + (self.half or 0.0)

    def overlaps(self, other: ConfidenceInterval) -> bool:
        """Whether the intervals share a point; a mean without an interval cannot be told apart from any."""
        if self.half is None or other.half is None:
            return True
        return self.low <= other.high and other.low <= self.high


def compute_interval(values: Sequence[float | None], level: float = 0.95) -> ConfidenceInterval | None:
    """Mean ± t_{n-1} s / sqrt(n), s with n - 1; None if no value is finite.

    >>> interval([1.0, 2.0, 3.0]).mean
    2.0
    """
    finite = [float(value) for value in values if value is not None and math.isfinite(value)]
    n = len(finite)
    if not n:
        return None
    mean = math.fsum(finite) / n
    if n == 1:
        return ConfidenceInterval(mean, None, 1, len(values) - 1)
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in finite) / (n - 1))
    return ConfidenceInterval(mean, compute_t_quantile(n - 1, level) * spread / math.sqrt(n), n, len(values) - n)


def compute_paired_interval(
    values: Mapping[int, float | None], baseline: Mapping[int, float | None]
) -> ConfidenceInterval | None:
    """Mean difference `values - baseline` over the seeds that both have, with its 95 % t interval.

    Pairing takes the noise that two runs of one seed share (data order, initial weights) out of the comparison.
    """
    common = sorted(values.keys() & baseline.keys())
    pairs = [(values[seed], baseline[seed]) for seed in common]
    return compute_interval([None if a is None or b is None else a - b for a, b in pairs])


def compute_t_quantile(degrees: int, level: float = 0.95) -> float:
    """The two-sided quantile of Student's t: 12.706 for one degree of freedom at 95 %."""
    from scipy.special import stdtrit  # scipy.stats would take a second to import

    return float(stdtrit(degrees, 0.5 + level / 2))


def compute_wilson_interval(hits: int, tries: int, z: float = 1.959964) -> tuple[float, float]:
    """The 95 % interval of a share of `tries` (Wilson 1927, "Probable inference, the law of succession").

    Honest at 0 and at 1, unlike mean ± z · deviation: none of 20 runs still leaves (0, 0.16). (0, 1) of no tries.
    """
    if not tries:
        return 0.0, 1.0
    share, part = hits / tries, z * z / tries
    middle = (share + part / 2) / (1 + part)
    half = z / (1 + part) * math.sqrt(share * (1 - share) / tries + part / (4 * tries))
    return max(0.0, middle - half), min(1.0, middle + half)


def compute_bootstrap_interval(
    differences: Sequence[float], *, draws: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """The 95 % percentile interval of the mean of paired differences (Efron 1979), one for each seed.

    The same numbers give the same interval. With few seeds it is too narrow: 5 can make no more than 126 means.
    """
    source = random.Random(seed)
    means = sorted(math.fsum(source.choices(differences, k=len(differences))) / len(differences) for _ in range(draws))
    return means[round(0.025 * (draws - 1))], means[round(0.975 * (draws - 1))]
