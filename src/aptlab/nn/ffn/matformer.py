"""Nested widths of a feed-forward. No torch."""

from __future__ import annotations

from dataclasses import dataclass

from aptlab.errors import ConfigError
from aptlab.limits import Fraction
from aptlab.nn.width import FULL, count_units


@dataclass(frozen=True, kw_only=True)
class MatFormer:
    """Nested feed-forwards in one set of matrices: width g works with the first m = g·F of the F hidden units.

    T_g(x) = W2[:, :m] · sigma(W1[:m] x + b1[:m]) + b2    (Devvrit et al. 2023, arXiv:2310.07707, section 3.1)

    With a gate, the rows of gate and value are cut alike; b2 belongs to all widths. Every slice is a prefix of the next
    larger one, so the first units serve all of them. Nothing is nested in attention, embedding or head.

    granularities  widths in (0, 1], 1 among them; kept largest first. The paper has 1, 1/2, 1/4 and 1/8

    Raises ConfigError for other lists, and in `count_units` where a width does not end at a whole unit.
    """

    granularities: tuple[Fraction, ...] = (1.0, 0.5, 0.25, 0.125)

    def __post_init__(self) -> None:
        given = tuple(float(width) for width in self.granularities)
        shown = f"granularities={[f'{width:g}' for width in given]}".replace("'", "")
        if wrong := [width for width in given if not 0 < width <= FULL]:
            raise ConfigError(f"{shown}: {wrong[0]:g} is no width; give shares of the hidden units in (0, 1]")
        if FULL not in given:
            raise ConfigError(f"{shown} lacks 1, the whole layer, which the others are nested in; add it")
        if len(set(given)) < len(given):
            raise ConfigError(f"{shown} names a width twice; leave one out")
        object.__setattr__(self, "granularities", tuple(sorted(given, reverse=True)))

    def count_units(self, hidden: int) -> dict[float, int]:
        """The hidden units of each width. ConfigError where one is no whole number of them."""
        return {width: count_units(hidden, width) for width in self.granularities}
