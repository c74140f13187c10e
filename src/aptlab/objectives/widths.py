"""Which widths of a nested network a training step runs, and what each weighs. No torch."""

from __future__ import annotations

import abc
import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aptlab.errors import ConfigError
from aptlab.limits import Fraction, NonNegativeInt, validate_limits

Draw = Callable[[int], float]  # number i of a step, in [0, 1)
SCALE = 2**53  # whole numbers that a double holds


def draw_share(seed: int, step: int, index: int) -> float:
    """A number in [0, 1) for every (seed, step, index), without a state: 53 bits of BLAKE2b (RFC 7693)."""
    digest = hashlib.blake2b(f"{seed}/{step}/{index}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / SCALE


@dataclass(frozen=True, kw_only=True)
class WidthStrategy(abc.ABC):
    """The widths of each step, the largest first, and the weight of their losses; a function of seed and step."""

    @abc.abstractmethod
    def choose_widths(self, widths: Sequence[float], draw: Draw) -> tuple[float, ...]:
        """Those of one step, out of `widths`, which is sorted from the largest; draw(i) is the step's i-th number."""

    @abc.abstractmethod
    def expect_passes(self, widths: Sequence[float]) -> dict[float, float]:
        """How often a step runs each width, in the mean."""

    def weigh_loss(self, count: int) -> float:
        """Factor on the loss of each of the step's `count` widths."""
        del count
        return 1.0


@dataclass(frozen=True, kw_only=True)
class SumWidths(WidthStrategy):
    """All widths, losses added up: the gradient is the sum of theirs (Devvrit et al. 2023, arXiv:2310.07707).

    MatLM's released code runs forward and backward at every width, adds gradients up, and then clips and steps once.
    """

    def choose_widths(self, widths: Sequence[float], draw: Draw) -> tuple[float, ...]:
        """All of them."""
        return tuple(widths)

    def expect_passes(self, widths: Sequence[float]) -> dict[float, float]:
        """Once each."""
        return dict.fromkeys(widths, 1.0)


@dataclass(frozen=True, kw_only=True)
class MeanWidths(SumWidths):
    """All widths, with the mean of their losses: the sum's direction, at the scale of one loss."""

    def weigh_loss(self, count: int) -> float:
        """1 / count."""
        return 1.0 / count


@dataclass(frozen=True, kw_only=True)
class SampleWidth(WidthStrategy):
    """One width a step, drawn with these probabilities: a step costs one pass (Devvrit et al. 2023, section 3).

    probabilities  one for each width, from the largest on, with sum 1; None = all alike
    """

    probabilities: tuple[Fraction, ...] | None = None

    def __post_init__(self) -> None:
        if self.probabilities is None:
            return
        given = tuple(float(share) for share in self.probabilities)
        if any(not 0 <= share <= 1 for share in given) or not math.isclose(sum(given), 1, abs_tol=1e-6):
            raise ConfigError(f"probabilities={list(given)} sum to {sum(given):g}; give shares in [0, 1] that sum to 1")
        object.__setattr__(self, "probabilities", given)

    def choose_widths(self, widths: Sequence[float], draw: Draw) -> tuple[float, ...]:
        """The first width whose cumulated probability is above the number drawn."""
        number, reached = draw(0), 0.0
        expected = self.expect_passes(widths)
        for width, share in expected.items():
            reached += share
            if number < reached:
                return (width,)
        return (max(width for width, share in expected.items() if share),)  # rounding left the sum below 1

    def expect_passes(self, widths: Sequence[float]) -> dict[float, float]:
        """The probabilities. ConfigError where there are not as many as widths."""
        shares = self.probabilities or (1 / len(widths),) * len(widths)
        if len(shares) != len(widths):
            raise ConfigError(
                f"probabilities={list(shares)} has {len(shares)} numbers for the {len(widths)} widths "
                f"{', '.join(f'{width:g}' for width in widths)}; give one for each, from the largest on"
            )
        return dict(zip(widths, shares, strict=True))


@dataclass(frozen=True, kw_only=True)
class SandwichWidths(WidthStrategy):
    """The largest, the smallest and `random` others a step, losses added up (Yu & Huang 2019, arXiv:1903.05134).

    random  widths drawn without putting back; with as many or more than there are between, every step runs all
    """

    random: NonNegativeInt = 2

    def __post_init__(self) -> None:
        validate_limits(self)

    def choose_widths(self, widths: Sequence[float], draw: Draw) -> tuple[float, ...]:
        """Largest first; the inner ones by a partial shuffle (Fisher & Yates)."""
        inner = list(widths[1:-1])
        for place in range(min(self.random, len(inner))):
            other = place + int(draw(place) * (len(inner) - place))
            inner[place], inner[other] = inner[other], inner[place]
        return tuple(sorted({widths[0], *inner[: self.random], widths[-1]}, reverse=True))

    def expect_passes(self, widths: Sequence[float]) -> dict[float, float]:
        """1 for both ends, random / inner for the others."""
        inner = max(len(widths) - 2, 1)
        ends = (widths[0], widths[-1])
        return {width: 1.0 if width in ends else min(1.0, self.random / inner) for width in widths}
