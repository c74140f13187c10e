"""How the tokens of a text rotate under a rule: what every analysis of positions is computed from.

Legend: P pairs, R sets of frequencies, T tokens. Everything is float64 and numpy; no torch.

A rule may rotate layers, heads or sections of a head differently. Each of these is a `RotaryPart`, one curve in a
figure; sets of frequencies that change from token to token, or with the length of the text, belong to one `RotaryPart`.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aptlab.errors import ConfigError
from aptlab.limits import NonNegativeInt, Positive, PositiveInt, validate_limits
from aptlab.nn.positions.rope import Dynamic, Rope, ScaledRotation, YaRNUniform, compute_standard_frequencies

Array = NDArray[Any]
LAYERS = 24  # layers that are asked for their rule; schedules repeat within them
BASE = 10_000.0  # of the standard rule that rules without a base are compared with
AXES = {2: ("height", "width"), 3: ("time", "height", "width")}
SAMPLE = 4096  # first tokens that are asked which set they use


@dataclass(frozen=True, kw_only=True)
class AnalysisSettings:
    """What all curves of a figure share: lengths in tokens, `original` the trained one and `length` the target."""

    length: PositiveInt
    original: PositiveInt = 4096
    head_dim: PositiveInt = 64
    heads: PositiveInt = 8
    bases: tuple[Positive, ...] = (1e3, 1e4, 1e5, 1e6, 1e7)
    seed: NonNegativeInt = 0

    def __post_init__(self) -> None:
        validate_limits(self)


class LongArray(np.ndarray):
    """Whole numbers that a rule's `regime` can be asked with: numpy, with the one method it takes from torch."""

    def long(self) -> Array:
        return self.astype(np.int64)


@dataclass(frozen=True, kw_only=True)
class RotaryPart:
    """Pairs that rotate alike.

    name    the rule as it was asked for, `yarn factor=8`; number  its place among the rules of the figure
    part    which layers, heads or section of the head, and place its number; empty where the whole rule is alike
    regime  set of frequencies of these heads; None = a token's own matter
    pairs   indices in the head
    """

    name: str
    rule: Rope
    head_dim: int
    pairs: tuple[int, ...]
    number: int = 0
    part: str = ""
    place: int = 0
    regime: int | None = None

    @property
    def label(self) -> str:
        return f"{self.name}, {self.part}" if self.part else self.name

    @property
    def still(self) -> int:
        """Dims of the head that do not rotate, which count into its logits."""
        sections = self.rule.combine(self.head_dim)
        return 0 if sections and len(set(sections)) > 1 else self.head_dim - 2 * len(self.pairs)

    def sets(self, length: int) -> Array:
        """[R, P] radians per token of every set, as texts of `length` tokens meet them."""
        return self.all_sets(length)[:, list(self.pairs)]

    def all_sets(self, length: int) -> Array:
        """`sets` with all pairs of the head."""
        if isinstance(self.rule, Dynamic):
            return np.array([self.rule.frequencies_at(length, self.head_dim)])
        return np.array(self.rule.regimes(self.head_dim))

    def choices(self, positions_T: Array, length: int) -> Array:
        """[T] the set of each token in a text of `length` tokens."""
        if self.regime is not None:
            return np.full(len(positions_T), self.regime)
        positions = np.asarray(positions_T, dtype=np.int64)[None].view(LongArray)
        chosen = self.rule.regime(positions, np.full_like(positions, length))
        return np.zeros(len(positions_T), np.int64) if chosen is None else np.asarray(chosen)[0]

    def used(self, length: int) -> Array:
        """Which sets texts of `length` tokens use."""
        first = np.arange(min(length, SAMPLE))
        return np.unique(self.choices(np.append(first, length - 1), length))

    def frequencies(self, length: int) -> Array:
        """[R, P] radians per token of the sets that texts of `length` tokens use."""
        return self.sets(length)[self.used(length)]

    def temperatures(self, positions_T: Array, length: int) -> Array:
        """[T] factor on the logits of each query."""
        values = np.array(self.rule.temperatures())
        return values[np.minimum(self.choices(positions_T, length), len(values) - 1)]

    def angles(self, positions_T: Array, length: int) -> tuple[Array, Array]:
        """Angle and size [T, P] of tokens at positions of this part's own stream."""
        places_T1 = np.asarray(positions_T, dtype=np.float64)[:, None]
        angle_TP = places_T1 * self.sets(length)[self.choices(positions_T, length)]
        rates = self.rule.amplitude(self.head_dim)
        return angle_TP, np.ones_like(angle_TP) if rates is None else np.exp(-places_T1 * self._own(rates))

    def decay(self) -> Array:
        """[P] factor on the logit of each pair per token of distance."""
        rates = self.rule.decay(self.head_dim)
        return np.ones(len(self.pairs)) if rates is None else self._own(rates)

    def trained(self, original: int) -> Array:
        """[R, P] radians per token in training: those of the plain rule where this one extends it, else its own."""
        if isinstance(self.rule, ScaledRotation | YaRNUniform):
            return self.plain()[None]
        return self.frequencies(original)

    def plain(self) -> Array:
        """[P] radians per token of the standard rule with the same base, on the dims that rotate."""
        base = getattr(self.rule, "base", None) or min(getattr(self.rule, "bases", (BASE,)))
        return self._own(compute_standard_frequencies(base, 2 * len(self.rule.inv_freq(self.head_dim))))

    def _own(self, values: tuple[float, ...]) -> Array:
        return np.array(values)[list(self.pairs)]


def split_rotary_parts(name: str, rule: Rope, setting: AnalysisSettings, number: int = 0) -> tuple[RotaryPart, ...]:
    """All parts of a rule: one per different layer, head and section. ConfigError for a rule that rotates none."""
    rules = list(dict.fromkeys(rule.for_layer(layer).rule for layer in range(LAYERS)))
    rotary_rules = [candidate for candidate in rules if candidate is not None]
    if not rotary_rules:
        raise ConfigError(
            f"rope={name} rotates no pair, so there is nothing to plot; choose a rope such as rope=standard"
        )
    found = []
    for layer_rule in rotary_rules:
        first = next(layer for layer in range(LAYERS) if rule.for_layer(layer).rule == layer_rule)
        layer = f"layer {first}" if len(rotary_rules) > 1 else ""
        for regime, head in _heads(layer_rule, setting):
            for pairs, section in _sections(layer_rule, setting.head_dim):
                part = ", ".join(word for word in (layer, head, section) if word)
                found.append((layer_rule, regime, pairs, part))
    return tuple(
        RotaryPart(
            name=name,
            rule=layer_rule,
            head_dim=setting.head_dim,
            pairs=pairs,
            number=number,
            part=part,
            place=place,
            regime=regime,
        )
        for place, (layer_rule, regime, pairs, part) in enumerate(found)
    )


def select_all_pairs(parts: tuple[RotaryPart, ...]) -> RotaryPart:
    """The first layer and head of a rule with all of its pairs."""
    first = parts[0]
    return dataclasses.replace(first, pairs=tuple(range(len(first.rule.inv_freq(first.head_dim)))), part="", place=0)


def compute_text_angles(part: RotaryPart, positions_T: Array, length: int) -> tuple[Array, Array]:
    """Angle and size [T, P] of the tokens of a text; rules for pictures and films read it as they say."""
    coefficients = part.rule.combine(part.head_dim)
    if coefficients is None:
        return part.angles(positions_T, length)
    streams = np.array(part.rule.spread(positions_T))  # type: ignore[attr-defined]
    places_TP = streams.T @ np.array(coefficients)[list(part.pairs)].T
    angle_TP = places_TP * part.sets(length)[part.choices(positions_T, length)]
    return angle_TP, np.ones_like(angle_TP)


def count_seen_rotations(part: RotaryPart, original: int) -> Array:
    """[P] how often each pair rotated within the trained length, in the set where it rotated most."""
    return part.trained(original).max(0) * original / (2 * math.pi)


def _heads(rule: Rope, setting: AnalysisSettings) -> list[tuple[int | None, str]]:
    """Sets that belong to heads, with their names; one nameless entry where heads do not differ."""
    regimes = rule.head_regimes(setting.heads)
    if regimes is None:
        return [(None, "")]
    return [(regime, f"head {regimes.index(regime)}") for regime in dict.fromkeys(regimes)]


def _sections(rule: Rope, head_dim: int) -> list[tuple[tuple[int, ...], str]]:
    """Pairs by the sum of streams that they rotate by, with its name."""
    rows = rule.combine(head_dim)
    if rows is None:
        return [(tuple(range(len(rule.inv_freq(head_dim)))), "")]
    return [
        (tuple(i for i, row in enumerate(rows) if row == coefficients), _spoken(coefficients, rule.streams))
        for coefficients in dict.fromkeys(rows)
    ]


def _spoken(coefficients: tuple[int, ...], streams: int) -> str:
    """`height`, `height + width`, `time + height − width`."""
    words = ""
    for factor, axis in zip(coefficients, AXES.get(streams, ("position",) * streams)):
        if factor:
            sign = "−" if factor < 0 else "+" if words else ""
            words += f" {sign} {axis}" if words else f"{sign}{axis}"
    return words
