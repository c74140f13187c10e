"""Every frequency divided by two."""

from __future__ import annotations

from dataclasses import dataclass

from aptlab.limits import Positive
from aptlab.nn.positions.rope import Rope, compute_standard_frequencies


@dataclass(frozen=True, kw_only=True)
class Half(Rope):
    """Every frequency divided by two."""

    base: Positive = 10_000.0

    def inv_freq(self, head_dim: int) -> tuple[float, ...]:
        return tuple(f / 2 for f in compute_standard_frequencies(self.base, head_dim))
