"""Rules that keep fast pairs, divide slow ones, and ramp between: one class of ramps, and what it is called where."""

from __future__ import annotations

import abc
import dataclasses
import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from aptlab.errors import ConfigError
from aptlab.limits import AtLeastOne, Positive, PositiveInt
from aptlab.nn.positions.rope.base import (
    Frequencies,
    blend_frequencies,
    check_choice,
    clamp_to_unit,
    compute_standard_frequencies,
    count_rotations,
)
from aptlab.nn.positions.rope.hf import HFForm, HFSource, make_hf_parameters
from aptlab.nn.positions.rope.ntk import check_critical
from aptlab.nn.positions.rope.scaled import ScaledRotation
from aptlab.nn.positions.rope.temperature import TEMPERATURE_LAWS, compute_temperature


@dataclass(frozen=True, kw_only=True)
class ByParts(ScaledRotation, abc.ABC):
    """h_i = keep_i · theta_i + (1 - keep_i) · theta_i / factor (Peng et al. 2023, arXiv:2309.00071, eq. 19).

    critical_dim  pair from which everything is divided by `factor`, in place of the one that follows from
                  original_len; the ramp then ends there (YaRN-rcd of LongRoPE2, arXiv:2502.20082, table 6)
    """

    critical_dim: PositiveInt | None = None

    @abc.abstractmethod
    def keep(self, head_dim: int) -> Frequencies:
        """Per pair of a head of so many dims that rotate: 1 keeps the frequency, 0 divides it."""

    def inv_freq(self, head_dim: int) -> Frequencies:
        """h_i, [P]."""
        dims = self.rotary_dims(head_dim)
        return blend_frequencies(compute_standard_frequencies(self.base, dims), self.stretch, self.keep(dims))

    def _by_turns(self, head_dim: int, low: float, high: float) -> Frequencies:
        """A ramp that is linear in the rotations within original_len, from 0 at `low` to 1 at `high`."""
        seen = [count_rotations(f, self.original_len) for f in compute_standard_frequencies(self.base, head_dim)]
        if self.critical_dim is not None:
            low = seen[check_critical(self.critical_dim, head_dim)]
            high = max(high, seen[self.critical_dim - 1])
        return tuple(clamp_to_unit((t - low) / (high - low)) for t in seen)


@dataclass(frozen=True, kw_only=True)
class YaRN(ByParts):
    """Keep fast pairs, divide slow ones by `factor`, ramp between, sharpen logits (Peng et al. 2023, arXiv:2309.00071).

    A pair that rotates `beta_fast` times or more within `original_len` tokens is kept, one that rotates
    `beta_slow` times or fewer is divided by `factor`.

    ramp="index"  the ramp is linear in the pair index, as in the released code and in every published
                  checkpoint; `truncate` rounds its ends outwards to whole pairs.
    ramp="ratio"  the ramp is linear in the number of rotations, as the paper's eq. 17 and 18 write it.
    Both differ by up to 0.37 in weight, so they are not interchangeable.
    The temperature multiplies queries and keys by 0.1 ln(factor) + 1 each (eq. 22), so logits by its square; other laws
    are in `aptlab.nn.positions.rope.temperature`, and `attention_factor` sets the factor on queries and keys itself.
    """

    hf_type: ClassVar[str] = "yarn"
    hf_heads: ClassVar[tuple[str, ...]] = ("whole", "part")
    beta_fast: Positive = 32.0
    beta_slow: Positive = 1.0
    ramp: Literal["index", "ratio"] = "index"
    truncate: bool = True
    temperature_law: Literal["none", "yarn", "su", "apt_sqrt", "apt_sqrt_plus1"] = "yarn"
    mscale: Positive = 1.0
    attention_factor: Positive | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.beta_fast <= self.beta_slow:
            raise ConfigError(
                f"beta_fast={self.beta_fast} must be larger than beta_slow={self.beta_slow}; published: 32, 1"
            )
        if self.ramp not in ("index", "ratio"):
            raise ConfigError(f"ramp={self.ramp!r}; allowed: index (released code), ratio (paper)")
        check_choice("temperature_law", self.temperature_law, TEMPERATURE_LAWS)

    @property
    def temperature(self) -> float:
        """The square of `attention_factor`, or what the law says."""
        if self.attention_factor is not None:
            return self.attention_factor**2
        return compute_temperature(self.temperature_law, self.stretch, self.original_len, self.mscale)

    def keep(self, head_dim: int) -> Frequencies:
        """1 for pairs of beta_fast rotations and more, 0 for beta_slow and fewer, [P]."""
        if self.ramp == "ratio":
            return self._by_turns(head_dim, self.beta_slow, self.beta_fast)
        low, high = self._pair_turning(self.beta_fast, head_dim), self._pair_turning(self.beta_slow, head_dim)
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, head_dim - 1)
        if self.critical_dim is not None:
            high = check_critical(self.critical_dim, head_dim)
            low = min(low, high - 1)
        if high == low:
            high += 0.001  # the released code's guard against a ramp of no width
        return tuple(1 - clamp_to_unit((i - low) / (high - low)) for i in range(head_dim // 2))

    def to_hf(self, head_dim: int, *, nested: bool = False) -> HFForm | None:
        """`yarn`, except with open ends below a layer type, where transformers does not read `truncate`."""
        del head_dim
        if nested and not self.truncate:
            return None
        values = {
            "factor": self.stretch,
            "original_max_position_embeddings": self.original_len,
            "attention_factor": math.sqrt(self.temperature),
            "beta_fast": float(self.beta_fast),
            "beta_slow": float(self.beta_slow),
            "truncate": self.truncate,
        }
        return HFForm(make_hf_parameters("yarn", float(self.base), **values))

    @classmethod
    def from_hf(cls, source: HFSource) -> YaRN:
        """DeepSeek's two mscales are one attention_factor, where it differs from the paper's."""
        length = source.read_original_length()
        if "factor" not in source.parameters:
            raise ConfigError(
                f"rope_type=yarn without factor in config.json says not how far it stretches {length} tokens, and "
                "transformers refuses it; write the factor there"
            )
        factor = source.read_factor(length)
        rule = cls(
            base=source.base,
            factor=factor,
            original_len=length,
            beta_fast=source.find_number("beta_fast") or 32.0,
            beta_slow=source.find_number("beta_slow") or 1.0,
            truncate=source.read_flag("truncate", True),
        )
        attention = source.find_number("attention_factor")
        if attention is None:
            mscale, all_dims = source.find_number("mscale"), source.find_number("mscale_all_dim")
            if mscale and all_dims:
                attention = compute_mscale(factor, mscale) / compute_mscale(factor, all_dims)
        return rotate_part(replace_attention_factor(rule, attention), source.fraction)

    def _pair_turning(self, times: float, head_dim: int) -> float:
        """The (fractional) pair index that rotates `times` times within the original context."""
        return head_dim * math.log(self.original_len / (times * 2 * math.pi)) / (2 * math.log(self.base))


def compute_mscale(factor: float, mscale: float) -> float:
    """m(c) = 0.1 c ln s + 1 of DeepSeek, 1 where nothing is stretched."""
    return 0.1 * mscale * math.log(factor) + 1 if factor > 1 else 1.0


def replace_attention_factor(rule: Any, factor: float | None) -> Any:
    """The rule with that `attention_factor`, or as it is where its own temperature says the same."""
    if factor is None or math.isclose(factor, math.sqrt(rule.temperature), rel_tol=1e-9):
        return rule
    return dataclasses.replace(rule, attention_factor=float(factor))


def rotate_part(rule: Any, fraction: float) -> Any:
    """The rule on the first `fraction` of each head, where its temperature is meant for the dims that rotate alone."""
    return rule if fraction == 1 else dataclasses.replace(rule, fraction=fraction, temperature_on="cos_sin")


@dataclass(frozen=True, kw_only=True)
class NTKByParts(ByParts):
    """YaRN's paper ramp without its temperature (Peng et al. 2023, arXiv:2309.00071, section 3.2; eq. 17 to 19)."""

    alpha: Positive = 1.0
    beta: Positive = 32.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.beta <= self.alpha:
            raise ConfigError(f"beta={self.beta} must be larger than alpha={self.alpha}; published: 32, 1")

    def keep(self, head_dim: int) -> Frequencies:
        """1 for pairs of beta rotations and more, 0 for alpha and fewer, [P]."""
        return self._by_turns(head_dim, self.alpha, self.beta)


@dataclass(frozen=True, kw_only=True)
class Llama3(ByParts):
    """The Llama 3.1 rule: by-parts scaling with a ramp in rotations and no temperature (Meta 2024, arXiv:2407.21783).

    Pairs with more than `high` rotations within `original_len` are kept, with fewer than `low` divided by `factor`,
    between them the kept part is (rotations - low) / (high - low): YaRN's ratio ramp with (low, high) for (1, 32).
    low = high is a step, as in Llama 4 Scout.
    """

    hf_type: ClassVar[str] = "llama3"
    hf_heads: ClassVar[tuple[str, ...]] = ("whole", "part")
    base: Positive = 500_000.0
    factor: AtLeastOne | None = 8.0
    low: Positive = 1.0
    high: Positive = 4.0
    original_len: PositiveInt = 8192

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.high < self.low:
            raise ConfigError(f"high={self.high} must not be smaller than low={self.low}; published: 4, 1")

    def keep(self, head_dim: int) -> Frequencies:
        """1 for pairs of more than high rotations, 0 for fewer than low, [P]."""
        if self.high > self.low:
            return self._by_turns(head_dim, self.low, self.high)
        if self.critical_dim is not None:
            critical = check_critical(self.critical_dim, head_dim)
            return tuple(float(i < critical) for i in range(head_dim // 2))
        seen = (count_rotations(f, self.original_len) for f in compute_standard_frequencies(self.base, head_dim))
        return tuple(float(t > self.low) for t in seen)

    def to_hf(self, head_dim: int, *, nested: bool = False) -> HFForm:
        """`llama3`, with its ramp."""
        del head_dim, nested
        values = {
            "factor": self.stretch,
            "original_max_position_embeddings": self.original_len,
            "low_freq_factor": float(self.low),
            "high_freq_factor": float(self.high),
        }
        return HFForm(make_hf_parameters("llama3", float(self.base), **values))

    @classmethod
    def from_hf(cls, source: HFSource) -> Llama3:
        """All four numbers must stand there."""
        return cls(
            base=source.base,
            factor=source.read_number("factor"),
            low=source.read_number("low_freq_factor"),
            high=source.read_number("high_freq_factor"),
            original_len=source.read_original_length(),
            fraction=source.fraction,
        )


@dataclass(frozen=True, kw_only=True)
class YaRNZones(ByParts):
    """The seeds' reading of YaRN: dims below zones[0] kept, from zones[1] on divided, linear between.

    Their "32 and 64" are YaRN's beta_fast taken for dims of the head; pair i is dim 2i. Relative like every rule of
    fixed frequencies, and up to 0.54 away from YaRN's weights in a Llama 2.
    """

    zones: tuple[int, int] = (32, 64)
    temperature_law: Literal["none", "yarn", "su", "apt_sqrt", "apt_sqrt_plus1"] = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "zones", tuple(self.zones))
        check_choice("temperature_law", self.temperature_law, TEMPERATURE_LAWS)
        if len(self.zones) != 2 or not 0 <= self.zones[0] < self.zones[1]:
            raise ConfigError(f"zones={list(self.zones)} must be two rising dims, such as [32, 64]")

    @property
    def temperature(self) -> float:
        """What the law says."""
        return compute_temperature(self.temperature_law, self.stretch, self.original_len, 1.0)

    def keep(self, head_dim: int) -> Frequencies:
        """1 below dim zones[0], 0 from zones[1] on, [P]."""
        first, last = self.zones
        if self.critical_dim is not None:
            first, last = min(first, 2 * self.critical_dim - 1), 2 * check_critical(self.critical_dim, head_dim)
        return tuple(1 - clamp_to_unit((2 * i - first) / (last - first)) for i in range(head_dim // 2))
