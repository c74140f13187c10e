"""What every position rule says: pure math on Python floats, no torch.

A rule says how fast each pair of a head turns. For head dimension D there are P = D/2 pairs; pair i of
the standard rule turns by `base^(-2i/D)` radians per token (Su et al. 2021, arXiv:2104.09864). The
extension rules slow pairs down so that a longer context meets only angles seen in training.

`relative` declares that the logit of a query at m and a key at n depends on m - n alone.

Methods that choose per token (`regime`) get tensors and use their operators only, so this file needs no torch.
"""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from aptlab.errors import ConfigError
from aptlab.limits import Positive, validate_limits
from aptlab.nn.positions.layer import LayerPositions

Frequencies = tuple[float, ...]


class Rope(abc.ABC):
    """A rule of rotary positions. Subclasses are frozen dataclasses."""

    relative: ClassVar[bool] = True
    streams: ClassVar[int] = 1  # numbers that make a position: 1 text, 2 (height, width), 3 (time, height, width)
    rotary_class: ClassVar[str] = "aptlab.nn.positions.rotary:RotaryEmbedding"  # the module that turns by this rule
    layout: str = "half"
    temperature_on: str = "logits"

    def __post_init__(self) -> None:
        validate_limits(self)

    @abc.abstractmethod
    def inv_freq(self, head_dim: int) -> Frequencies:
        """Radians per token of each pair, fastest first, in float64.

        P <= head_dim / 2 numbers; with fewer, only the first 2P dims of a head turn.
        """

    @property
    def temperature(self) -> float:
        """Factor on the attention logits q·k (1 = none)."""
        return 1.0

    def regimes(self, head_dim: int) -> tuple[Frequencies, ...]:
        """The sets of frequencies among which `regime` or `head_regimes` chooses."""
        return (self.inv_freq(head_dim),)

    def temperatures(self) -> tuple[float, ...]:
        """Factor on the logits of each regime's queries."""
        return (self.temperature,)

    def regime(self, positions: Any, lengths: Any) -> Any:
        """Index of each token's regime, int64 like `positions` [B, T]; None where there is one for all.

        `lengths` [B, T] is the length of the sequence that the token belongs to, with what is still to be generated:
        it is known when the sequence begins, so that other rows of the batch change nothing.
        """
        del positions, lengths

    def head_regimes(self, groups: int) -> tuple[int, ...] | None:
        """Index of each key/value head's regime; None where heads do not differ."""
        del groups
        return None

    def combine(self, head_dim: int) -> tuple[tuple[int, ...], ...] | None:
        """Per pair, the integers by which the position's streams are multiplied and summed; None = the one stream."""
        del head_dim
        return None

    def amplitude(self, head_dim: int) -> Frequencies | None:
        """Per pair the rate r of exp(-r · position) on queries and keys alike; None = norms are kept."""
        del head_dim
        return None

    def decay(self, head_dim: int) -> Frequencies | None:
        """Per pair the factor in (0, 1] by which the logit shrinks with every token of distance; None = none."""
        del head_dim
        return None

    def for_layer(self, layer: int) -> LayerPositions:
        """What positions do in one layer."""
        del layer
        return LayerPositions(rule=self)


@dataclass(frozen=True, kw_only=True)
class Rotation(Rope):
    """A rule with a base: what all options share that turn every layer alike.

    layout          which dims of a head form pair i of P: half = (i, i + P) as in Hugging Face checkpoints,
                    interleaved = (2i, 2i + 1) as in Su et al. 2021, eq. 34, and Meta's weights
    temperature_on  logits = the temperature multiplies the softmax scale; cos_sin = queries and keys each are
                    multiplied by its root where they turn, as some checkpoints expect
    """

    base: Positive = 10_000.0
    layout: Literal["half", "interleaved"] = "half"
    temperature_on: Literal["logits", "cos_sin"] = "logits"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("layout", self.layout, ("half", "interleaved"))
        check_choice("temperature_on", self.temperature_on, ("logits", "cos_sin"))


def check_choice(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"rope.{name}={value!r}; allowed: {', '.join(allowed)}")


def compute_standard_frequencies(base: float, head_dim: int) -> Frequencies:
    """theta_i = base^(-2i/D) for i = 0 .. D/2 - 1."""
    if head_dim < 2 or head_dim % 2:
        raise ConfigError(f"size.head_dim={head_dim} is not a positive even number, rotary pairs need one")
    if base <= 1:
        raise ConfigError(f"rope.base={base} must be larger than 1, so that later pairs turn slower; published: 10000")
    return tuple(base ** (-2 * i / head_dim) for i in range(head_dim // 2))


def blend_frequencies(frequencies: Frequencies, factor: float, keep: Frequencies) -> Frequencies:
    """Per pair: `keep` parts of the frequency as it is, the rest divided by `factor`."""
    return tuple(k * f + (1 - k) * f / factor for f, k in zip(frequencies, keep, strict=True))


def clamp_to_unit(value: float) -> float:
    return min(1.0, max(0.0, value))


def count_rotations(frequency: float, length: int) -> float:
    """How often a pair turns within `length` tokens."""
    return length * frequency / (2 * math.pi)
