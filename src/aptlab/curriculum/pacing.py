"""Pacing functions: the share of the sorted rows that is open after step t of T; s(0) = 0, s(T) = 1, never falling."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from aptlab.limits import AtLeastOne, Fraction, PositiveInt, validate_limits


class Pacing(ABC):
    """A share in [0, 1] for every step; a frozen dataclass."""

    def compute_share(self, step: int, steps: int) -> float:
        """s(step) of `steps`: 0 before the first one, 1 at the last one."""
        if step <= 0:
            return 0.0
        return 1.0 if step >= steps else min(1.0, max(0.0, self.compute_inner(step, steps)))

    @abstractmethod
    def compute_inner(self, step: int, steps: int) -> float:
        """s(step) for 0 < step < steps."""

    def cut_edges(self, count: int, steps: int) -> list[int]:
        """The ends of `steps` slices of `count` rows, with 0 in front: [steps + 1], from 0 to `count`."""
        return [round(self.compute_share(step, steps) * count) for step in range(steps + 1)]


@dataclass(frozen=True, kw_only=True)
class CampusPacing(Pacing):
    """Exponential: s(1) = first,  s(t) = min(1, p^(t-T) + first (p - 1)) for t = 2 … T.

    Li et al. (2025, arXiv:2509.13790) write (p^t - s(1) p^T) / p^T + s(1) p, with s(1) = 0.01 and p = 2. Nearly all
    rows are in the last slices.
    """

    first: Fraction = 0.01
    p: AtLeastOne = 2.0

    def __post_init__(self) -> None:
        validate_limits(self)

    def compute_inner(self, step: int, steps: int) -> float:
        return self.first if step == 1 else self.p ** (step - steps) + self.first * (self.p - 1)


@dataclass(frozen=True, kw_only=True)
class LinearPacing(Pacing):
    """s(t) = t (1 - first) / T + first (Platanios et al. 2019, arXiv:1903.09848, equation 5)."""

    first: Fraction = 0.01

    def __post_init__(self) -> None:
        validate_limits(self)

    def compute_inner(self, step: int, steps: int) -> float:
        return step * (1 - self.first) / steps + self.first


@dataclass(frozen=True, kw_only=True)
class SqrtPacing(Pacing):
    """Root competence: s(t) = (t (1 - first^p) / T + first^p)^(1/p), p = 2 the square root.

    Platanios et al. (2019, arXiv:1903.09848, equations 7 and 8): new rows come at a rate inverse to those there are.
    """

    first: Fraction = 0.01
    p: AtLeastOne = 2.0

    def __post_init__(self) -> None:
        validate_limits(self)

    def compute_inner(self, step: int, steps: int) -> float:
        return (step * (1 - self.first**self.p) / steps + self.first**self.p) ** (1 / self.p)


@dataclass(frozen=True, kw_only=True)
class BabySteps(Pacing):
    """Equal buckets, one after the other: s(t) = ceil(t buckets / T) / buckets.

    The "baby steps" of Spitkovsky et al. (2010, "From Baby Steps to Leapfrog", NAACL) over quantiles.
    """

    buckets: PositiveInt = 4

    def __post_init__(self) -> None:
        validate_limits(self)

    def compute_inner(self, step: int, steps: int) -> float:
        return math.ceil(step * self.buckets / steps) / self.buckets
