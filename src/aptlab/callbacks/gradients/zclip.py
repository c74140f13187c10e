"""Clipping of the global norm where it is an outlier among the norms of late."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from aptlab.callbacks.gradients.base import GradientCallback, Weights, check_limits, scale_gradients
from aptlab.limits import OpenFraction, Positive, PositiveInt

GUARD = 1e-6  # added to the deviation, which is 0 where all norms of the warm-up were equal


class ZClip(GradientCallback):
    """A global norm far above its running mean is pulled back (Kumar et al. 2025, arXiv:2504.02507).

        z = (|g| - mu) / sigma          where z > threshold: |g| <- mu + sigma · threshold² / z
        mu <- alpha mu + (1 - alpha) |g|          sigma² <- alpha sigma² + (1 - alpha) (|g| - mu)²

    by the clipped norm and the new mu. The first `warmup` norms clip nothing and give the first mu and sigma. The
    larger z is, the further down the norm comes: to mu for a z without bound. Logs `z` and `clipped`, 1 or 0; float32.
    """

    name = "zclip"

    def __init__(
        self,
        *,
        threshold: Positive = 2.5,
        alpha: OpenFraction = 0.97,
        warmup: PositiveInt = 25,
        every: PositiveInt = 10,
    ) -> None:
        super().__init__(every=every)
        check_limits(
            ("threshold", threshold, Positive), ("alpha", alpha, OpenFraction), ("warmup", warmup, PositiveInt)
        )
        self.threshold, self.alpha, self.warmup = threshold, alpha, warmup
        self.mean: Tensor | None = None  # None until the warm-up has enough norms
        self.variance: Tensor | None = None
        self.seen: list[Tensor] = []  # norms of the warm-up; nan where a step was skipped

    def change(self, weights: Weights, finite: Tensor, norm: Tensor) -> dict[str, Tensor]:
        """Scale all gradients by one factor, and learn from the norm that is left."""
        norm = norm.to(torch.promote_types(norm.dtype, torch.float32))
        if self.mean is None or self.variance is None:
            self._warm_up(torch.where(finite, norm, torch.nan))
            zero = torch.zeros_like(norm)
            return {"z": zero, "clipped": zero}
        mean, variance = self.mean.to(norm), self.variance.to(norm)
        deviation = variance.sqrt() + GUARD
        z = (norm - mean) / deviation
        high = z > self.threshold
        clipped = torch.where(high, mean + deviation * self.threshold**2 / z, norm)
        new = self.alpha * mean + (1 - self.alpha) * clipped
        spread = self.alpha * variance + (1 - self.alpha) * (clipped - new).square()
        self.mean, self.variance = torch.where(finite, new, mean), torch.where(finite, spread, variance)
        scale_gradients(weights, [torch.where(high, clipped / norm, 1.0)] * len(weights))
        return {"z": z, "clipped": high.to(norm.dtype)}

    def _warm_up(self, norm: Tensor) -> None:
        """Keep a norm; at the last one make mean and variance of those that are finite."""
        self.seen.append(norm)
        if len(self.seen) < self.warmup:
            return
        norms = torch.stack([one.to(norm) for one in self.seen])
        good = norms.isfinite()
        count = good.sum().clamp(min=1)
        self.mean = torch.where(good, norms, 0.0).sum() / count
        self.variance = torch.where(good, norms - self.mean, 0.0).square().sum() / count
        self.seen = []

    def state_dict(self) -> dict[str, Any]:
        """Mean, variance and the norms of a warm-up that is not over."""
        numbers = {"mean": self.mean, "variance": self.variance}
        kept = {name: None if value is None else value.cpu().clone() for name, value in numbers.items()}
        return {**super().state_dict(), **kept, "seen": [norm.cpu().clone() for norm in self.seen]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.mean, self.variance, self.seen = state_dict["mean"], state_dict["variance"], list(state_dict["seen"])
