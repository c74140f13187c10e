"""A rotary rule whose slow pairs are slower still."""

from __future__ import annotations

from dataclasses import dataclass

from aptlab.limits import Fraction
from aptlab.nn.positions.rope import Frequencies, Rotation, compute_standard_frequencies


@dataclass(frozen=True, kw_only=True)
class SlowStart(Rotation):
    """theta_i · (1 - share · i / P): the slowest pair loses almost `share` of its speed."""

    share: Fraction = 0.5

    def inv_freq(self, head_dim: int) -> Frequencies:
        """Slowed frequencies, [P]."""
        frequencies = compute_standard_frequencies(self.base, head_dim)
        return tuple(f * (1 - self.share * i / len(frequencies)) for i, f in enumerate(frequencies))
