"""Rules whose frequencies never change. Sources are named with each."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from aptlab.errors import ConfigError
from aptlab.limits import AtLeastOne, Positive, PositiveInt
from aptlab.nn.rope.base import Frequencies, Placement, Rope, Rotation, blend, clamp01, standard_frequencies


@dataclass(frozen=True, kw_only=True)
class NoRope(Rope):
    """No rotary positions (NoPE): a causal model finds order by itself (Kazemnejad et al. 2023, arXiv:2305.19466)."""

    def inv_freq(self, head_dim: int) -> Frequencies:
        raise ConfigError("rope=none has no frequencies; choose a rope option such as rope=standard")

    def at(self, layer: int) -> Placement:
        del layer
        return Placement()


@dataclass(frozen=True, kw_only=True)
class Standard(Rotation):
    """Rotary embedding as published: theta_i = base^(-2i/D) (Su et al. 2021, arXiv:2104.09864, eq. 15)."""

    def inv_freq(self, head_dim: int) -> Frequencies:
        return standard_frequencies(self.base, head_dim)


@dataclass(frozen=True, kw_only=True)
class Linear(Rotation):
    """Position interpolation: every frequency divided by `factor` (Chen et al. 2023, arXiv:2306.15595, eq. 4)."""

    factor: AtLeastOne = 4.0

    def inv_freq(self, head_dim: int) -> Frequencies:
        return tuple(f / self.factor for f in standard_frequencies(self.base, head_dim))


@dataclass(frozen=True, kw_only=True)
class NTK(Rotation):
    """NTK-aware scaling: base' = base · factor^(D/(D-2)) (bloc97 2023; Peng et al. 2023, arXiv:2309.00071, eq. 16).

    The fastest pair keeps its frequency, the slowest is divided by exactly `factor`.
    """

    factor: AtLeastOne = 4.0

    def scaled_base(self, head_dim: int) -> float:
        if head_dim <= 2:
            raise ConfigError(f"size.head_dim={head_dim}: rope=ntk needs at least 4, its exponent is D/(D-2)")
        return self.base * self.factor ** (head_dim / (head_dim - 2))

    def inv_freq(self, head_dim: int) -> Frequencies:
        return standard_frequencies(self.scaled_base(head_dim), head_dim)


@dataclass(frozen=True, kw_only=True)
class YaRN(Rotation):
    """Keep fast pairs, divide slow ones by `factor`, ramp between, sharpen logits (Peng et al. 2023, arXiv:2309.00071).

    A pair that turns `beta_fast` times or more within `original_len` tokens is kept, one that turns
    `beta_slow` times or fewer is divided by `factor`.

    ramp="index"  the ramp is linear in the pair index, as in the released code and in every published
                  checkpoint; `truncate` rounds its ends outwards to whole pairs.
    ramp="ratio"  the ramp is linear in the number of turns, as the paper's eq. 17 and 18 write it.
    Both differ by up to 0.37 in weight, so they are not interchangeable.
    The temperature multiplies queries and keys by 0.1 ln(factor) + 1 each (eq. 22), so logits by its square.
    """

    factor: AtLeastOne = 4.0
    original_len: PositiveInt = 4096
    beta_fast: Positive = 32.0
    beta_slow: Positive = 1.0
    ramp: Literal["index", "ratio"] = "index"
    truncate: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.beta_fast <= self.beta_slow:
            raise ConfigError(
                f"rope.beta_fast={self.beta_fast} must be larger than rope.beta_slow={self.beta_slow}; published: 32, 1"
            )
        if self.ramp not in ("index", "ratio"):
            raise ConfigError(f"rope.ramp={self.ramp!r}; allowed: index (released code), ratio (paper)")

    @property
    def temperature(self) -> float:
        return (0.1 * math.log(self.factor) + 1) ** 2

    def inv_freq(self, head_dim: int) -> Frequencies:
        frequencies = standard_frequencies(self.base, head_dim)
        keep = self._keep_by_index(head_dim) if self.ramp == "index" else self._keep_by_ratio(frequencies)
        return blend(frequencies, self.factor, keep)

    def _keep_by_ratio(self, frequencies: Frequencies) -> Frequencies:
        turns = (self.original_len * f / (2 * math.pi) for f in frequencies)
        return tuple(clamp01((t - self.beta_slow) / (self.beta_fast - self.beta_slow)) for t in turns)

    def _keep_by_index(self, head_dim: int) -> Frequencies:
        low, high = self._pair_turning(self.beta_fast, head_dim), self._pair_turning(self.beta_slow, head_dim)
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, head_dim - 1)
        if high == low:
            high += 0.001  # the released code's guard against a ramp of no width
        return tuple(1 - clamp01((i - low) / (high - low)) for i in range(head_dim // 2))

    def _pair_turning(self, times: float, head_dim: int) -> float:
        """The (fractional) pair index that turns `times` times within the original context."""
        return head_dim * math.log(self.original_len / (times * 2 * math.pi)) / (2 * math.log(self.base))


@dataclass(frozen=True, kw_only=True)
class Llama3(Rotation):
    """The Llama 3.1 rule: by-parts scaling with a ramp in turns and no temperature (Meta 2024, arXiv:2407.21783).

    Pairs with more than `high` turns within `original_len` are kept, with fewer than `low` divided by `factor`,
    between them the kept part is (turns - low) / (high - low): YaRN's ratio ramp with (low, high) for (1, 32).
    """

    base: Positive = 500_000.0
    factor: AtLeastOne = 8.0
    low: Positive = 1.0
    high: Positive = 4.0
    original_len: PositiveInt = 8192

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.high <= self.low:
            raise ConfigError(f"rope.high={self.high} must be larger than rope.low={self.low}; published: 4, 1")

    def inv_freq(self, head_dim: int) -> Frequencies:
        frequencies = standard_frequencies(self.base, head_dim)
        turns = (self.original_len * f / (2 * math.pi) for f in frequencies)
        return blend(frequencies, self.factor, tuple(clamp01((t - self.low) / (self.high - self.low)) for t in turns))
