"""Learning-rate schedules: pure functions of the step, in shares of the whole run. No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from aptlab.errors import ConfigError
from aptlab.limits import Fraction, OpenFraction, validate_limits
from aptlab.optim.base import Schedule


def compute_warmup(step: int, warmup_steps: int) -> float:
    """Linear warm-up that reaches 1 at `warmup_steps` and is never 0, so that the first step counts."""
    return min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0


@dataclass(frozen=True, kw_only=True)
class Cosine(Schedule):
    """Warm-up, then final + (1 - final)(1 + cos(pi t)) / 2 (Loshchilov & Hutter 2017, arXiv:1608.03983, eq. 5).

    warmup  share of all steps spent rising
    final   last learning rate / peak
    """

    warmup: OpenFraction = 0.05
    final: Fraction = 0.1

    def __post_init__(self) -> None:
        validate_limits(self)

    def factor(self, step: int, total: int) -> float:
        """Learning rate / peak at optimizer step `step` (0-based) of `total`."""
        rising = round(self.warmup * total)
        if step < rising:
            return compute_warmup(step, rising)
        t = min(1.0, (step - rising) / max(1, total - 1 - rising))
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * t)) / 2


@dataclass(frozen=True, kw_only=True)
class WSD(Schedule):
    """Warm-up, stable, linear decay (Hu et al. 2024, arXiv:2404.06395): a run can go on from the stable part.

    warmup  share of all steps spent rising
    decay   share of all steps spent falling, at the end
    final   last learning rate / peak
    """

    warmup: OpenFraction = 0.05
    decay: Fraction = 0.2
    final: Fraction = 0.0

    def __post_init__(self) -> None:
        validate_limits(self)
        if self.warmup + self.decay > 1:
            raise ConfigError(
                f"warmup={self.warmup} and decay={self.decay} are shares of one run; make them add up to at most 1"
            )

    def factor(self, step: int, total: int) -> float:
        """Learning rate / peak at optimizer step `step` (0-based) of `total`."""
        rising, falling = round(self.warmup * total), round(self.decay * total)
        if step < rising:
            return compute_warmup(step, rising)
        t = min(1.0, max(0, step - (total - 1 - falling)) / max(1, falling))
        return 1 - (1 - self.final) * t
