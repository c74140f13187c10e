"""Clipping of each weight's gradient against its own past. Legend: n weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from aptlab.callbacks.gradients.base import (
    GradientCallback,
    Weights,
    check_limits,
    list_gradients,
    measure_norms,
    scale_gradients,
)
from aptlab.limits import AtLeastOne, NonNegativeInt, OpenFraction, Positive, PositiveInt


class AdaGC(GradientCallback):
    """Each weight's gradient is bounded by a running mean of its clipped norms (Wang et al. 2025, arXiv:2502.11034).

        t < warmup   g <- g · min(max_norm / |g|, 1) by the global norm    gamma_i <- min(gamma_i, |g_i|)
        after it     g_i <- g_i · min(relative · gamma_i / |g_i|, 1)       gamma_i <- beta gamma_i + (1 - beta) |g_i|

    g_i is the gradient of weight i, |·| the Euclidean norm, both means taken of the clipped norm. A gradient is never
    made larger. What differs from the source: norms of 0 teach nothing, as a weight whose gradient is 0 at the start
    (behind a matrix of zeros) would stay where it is for ever; a weight that is new after the warm-up begins with its
    own first norm. Logs `clipped`, the share of weights whose gradient was made smaller. Norms in float32.
    """

    name = "adagc"

    def __init__(
        self,
        *,
        relative: AtLeastOne = 1.05,
        beta: OpenFraction = 0.98,
        warmup: NonNegativeInt = 100,
        max_norm: Positive = 1.0,
        every: PositiveInt = 10,
    ) -> None:
        super().__init__(every=every)
        check_limits(("relative", relative, AtLeastOne), ("beta", beta, OpenFraction))
        check_limits(("warmup", warmup, NonNegativeInt), ("max_norm", max_norm, Positive))
        self.relative, self.beta, self.warmup, self.max_norm = relative, beta, warmup, max_norm
        self.bounds: dict[str, Tensor] = {}  # gamma of each weight, a scalar; infinite until a norm was seen

    def change(self, weights: Weights, finite: Tensor, norm: Tensor) -> dict[str, Tensor]:
        """Clip by the whole in the warm-up, by each weight's own bound after it."""
        norms_n = measure_norms(list_gradients(weights))
        unknown = norms_n.new_full((), torch.inf)
        known_n = torch.stack([self.bounds.get(name, unknown).to(norms_n) for name in weights])
        warming = self.steps <= self.warmup
        if warming:
            factors_n = (self.max_norm / norm.to(norms_n)).clamp(max=1.0).expand_as(norms_n)
        else:
            factors_n = torch.where(norms_n > 0, self.relative * known_n / norms_n, 1.0).clamp(max=1.0)
        clipped_n = norms_n * factors_n
        new_n = torch.minimum(known_n, clipped_n)
        if not warming:
            mean_n = self.beta * known_n + (1 - self.beta) * clipped_n
            new_n = torch.where(known_n.isinf(), clipped_n, mean_n)
        new_n = torch.where(finite & (norms_n > 0), new_n, known_n)
        self.bounds |= dict(zip(weights, new_n.unbind(), strict=True))
        scale_gradients(weights, factors_n.unbind())
        return {"clipped": (factors_n < 1).float().mean()}

    def state_dict(self) -> dict[str, Any]:
        """The bound of each weight by its name."""
        return {**super().state_dict(), "bounds": {name: bound.cpu().clone() for name, bound in self.bounds.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.bounds = dict(state_dict["bounds"])
