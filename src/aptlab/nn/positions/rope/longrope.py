"""Searched divisors per pair: LongRoPE (Ding et al. 2024, arXiv:2402.13753) and LongRoPE2 (arXiv:2502.20082)."""

from __future__ import annotations

import abc
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from aptlab.errors import ConfigError
from aptlab.limits import NonNegativeInt, Positive, PositiveInt
from aptlab.nn.positions.rope.base import Frequencies, compute_standard_frequencies, divide_standard
from aptlab.nn.positions.rope.by_parts import YaRN, replace_attention_factor, rotate_part
from aptlab.nn.positions.rope.hf import HFRefusal, HFSource
from aptlab.nn.positions.rope.ntk import check_critical
from aptlab.nn.positions.rope.scaled import ScaledRotation
from aptlab.nn.positions.rope.temperature import compute_su_temperature

Divisors = tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class SearchedRotation(ScaledRotation, abc.ABC):
    """theta_i / lambda_i with two lists of divisors: `short` up to `original_len` tokens, `long` beyond.

    Which list a token rotates by follows from the length of its own sequence, so rows of a batch and documents of a
    packed row choose for themselves.

    With `fraction` below 1 there is a divisor for each pair that rotates, as in Phi-4-mini (0.75).
    """

    switches_by_length: ClassVar[bool] = True
    short: tuple[float, ...] | None = None
    long: tuple[float, ...] | None = None
    attention_factor: Positive | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("short", "long"):
            divisors = getattr(self, name)
            if divisors is None:
                continue
            object.__setattr__(self, name, tuple(float(value) for value in divisors))
            wrong = [value for value in getattr(self, name) if not 0 < value < math.inf]
            if wrong:
                raise ConfigError(
                    f"{name} holds a divisor that is no positive number: {wrong[0]:g}; 1 keeps a frequency"
                )

    @abc.abstractmethod
    def initial_divisors(self, rotary: int) -> Divisors:
        """Long divisors where none are given, for the dims of a head that rotate."""

    def inv_freq(self, head_dim: int) -> Frequencies:
        """Those of texts beyond original_len, [P]."""
        return self.regimes(head_dim)[1]

    def frequencies_at(self, length: int, head_dim: int) -> Frequencies:
        """Those of a text of `length` tokens."""
        return self.regimes(head_dim)[int(length > self.original_len)]

    def divisors(self, head_dim: int, learned: Frequencies | None = None) -> tuple[Frequencies, Frequencies]:
        """Given lists as they are, not through a quotient; guessed ones as the regimes have them."""
        del learned
        short, *_, long = self.regimes(head_dim)
        dims = self.rotary_dims(head_dim)
        return self.short or divide_standard(self, short, dims), self.long or divide_standard(self, long, dims)

    def list_length_warnings(self, option: str, length: int) -> Iterator[str]:
        """Also a long list that nobody has searched."""
        yield from super().list_length_warnings(option, length)
        if self.long is None and length > self.original_len:
            yield (
                f"rope={option}: rope.long=null, so its divisors are a first guess and not searched; "
                f"`aptlab search rope={option} ckpt=… target={length}` finds them"
            )

    def regimes(self, head_dim: int) -> tuple[Frequencies, ...]:
        """Frequencies of short texts, and of long ones."""
        rotary = self.rotary_dims(head_dim)
        standard = compute_standard_frequencies(self.base, rotary)
        short = self._divisors("short", rotary) or (1.0,) * len(standard)
        long = self._divisors("long", rotary) or self.initial_divisors(rotary)
        return tuple(tuple(f / d for f, d in zip(standard, each)) for each in (short, long))

    def _divisors(self, name: str, rotary: int) -> Divisors | None:
        divisors = getattr(self, name)
        if divisors is not None and len(divisors) != rotary // 2:
            what = f"a head of {rotary} dims" if self.fraction == 1 else f"a head of which {rotary} dims rotate"
            raise ConfigError(
                f"{name} has {len(divisors)} divisors, and {what} needs {rotary // 2}; it was found for another "
                "model: search again with `aptlab search rope=longrope2 ckpt=… target=…`"
            )
        return divisors

    def regime(self, positions: Any, lengths: Any) -> Any:
        """1 in texts longer than original_len, else 0."""
        del positions
        return (lengths > self.original_len).long()


@dataclass(frozen=True, kw_only=True)
class LongRoPE(SearchedRotation):
    """Divisors found by an evolutionary search on perplexity (Ding et al. 2024, arXiv:2402.13753).

    short, long       a divisor per pair; None = all ones, and YaRN's, the search's first guess
    attention_factor  factor on queries and keys each, at every length; None = sqrt(1 + ln s / ln L), as in Phi-3
    retained          first tokens of a long text that keep the plain frequencies (n^): no longer relative
    """

    hf_type: ClassVar[str] = "longrope"
    hf_heads: ClassVar[tuple[str, ...]] = ("whole", "part")
    way_to_relative: ClassVar[str] = "rope.retained=0 is relative"
    retained: NonNegativeInt = 0

    @property
    def relative(self) -> bool:  # type: ignore[override]
        """Retained tokens rotate by other frequencies than the rest."""
        return self.retained == 0

    @property
    def temperature(self) -> float:
        """The square of `attention_factor`, or 1 + ln s / ln L."""
        if self.attention_factor is not None:
            return self.attention_factor**2
        return compute_su_temperature(self.stretch, self.original_len) if self.stretch > 1 else 1.0

    def hf_refusal(self, head_dim: int) -> HFRefusal | None:
        """Retained tokens have no key in a config.json."""
        if self.retained:
            reason = f"with rope.retained={self.retained} rotates the first tokens by other frequencies"
            return HFRefusal(reason, "train with rope.retained=0 to export")
        return super().hf_refusal(head_dim)

    @classmethod
    def from_hf(cls, source: HFSource) -> LongRoPE:
        """On a part of each head the factor is meant for the dims that rotate alone."""
        length = source.read_original_length()
        short, long = (read_divisors(source, key) for key in ("short_factor", "long_factor"))
        factor = max(1.0, source.read_factor(length))
        rule = cls(base=source.base, factor=factor, original_len=length, short=short, long=long)
        return rotate_part(replace_attention_factor(rule, source.find_number("attention_factor")), source.fraction)

    def initial_divisors(self, rotary: int) -> Divisors:
        """YaRN's divisors."""
        yarn = YaRN(base=self.base, factor=self.stretch, original_len=self.original_len).inv_freq(rotary)
        return tuple(f / y for f, y in zip(compute_standard_frequencies(self.base, rotary), yarn, strict=True))

    def regimes(self, head_dim: int) -> tuple[Frequencies, ...]:
        """Also the plain frequencies, where tokens are retained."""
        pair = super().regimes(head_dim)
        return (*pair, compute_standard_frequencies(self.base, self.rotary_dims(head_dim))) if self.retained else pair

    def temperatures(self) -> tuple[float, ...]:
        """The same in all regimes."""
        return (self.temperature,) * (3 if self.retained else 2)

    def regime(self, positions: Any, lengths: Any) -> Any:
        """2 for the retained tokens of long texts."""
        chosen = super().regime(positions, lengths)
        return chosen + chosen * (positions < self.retained).long() if self.retained else chosen


def read_divisors(source: HFSource, key: str) -> Divisors:
    """A list of a config.json; ConfigError names it where it is none."""
    values = source.parameters.get(key)
    if not isinstance(values, list) or not all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in values
    ):
        raise ConfigError(f"{key}={values!r} in config.json is not a list of numbers; repair it")
    return tuple(float(value) for value in values)


@dataclass(frozen=True, kw_only=True)
class LongRoPE2(SearchedRotation):
    """Divisors from a critical pair on, found by needle perplexity.

    Shang et al. 2025 (arXiv:2502.20082, section 3).

    critical_dim      the pair d_rcd from which divisors are free; None = the theoretical one,
                      ceil(D/2 · log_base(L / 2 pi)). Faster pairs i have lambda_rcd^(i / d_rcd)
    short, long       as in LongRoPE; divisors must not fall. long None = `factor` from critical_dim on
    attention_factor  factor on queries and keys each beyond original_len; None = 1
    """

    critical_dim: PositiveInt | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("short", "long"):
            divisors = getattr(self, name) or ()
            if min(divisors, default=1.0) < 1:
                raise ConfigError(
                    f"{name} holds {min(divisors):g}, and divisors of longrope2 are at least 1, for no pair rotates "
                    "faster than in training; use rope=longrope for a published list with smaller ones"
                )
            falls = [i + 1 for i, (a, b) in enumerate(itertools.pairwise(divisors)) if b < a]
            if falls:
                raise ConfigError(
                    f"{name} falls at pair {falls[0]}: {divisors[falls[0] - 1]} to {divisors[falls[0]]}; divisors of "
                    "longrope2 rise from pair to pair; use rope=longrope for a list that does not"
                )

    def critical(self, rotary: int) -> int:
        """d_rcd as a pair index, of the dims that rotate."""
        if self.critical_dim is not None:
            return check_critical(self.critical_dim, rotary)
        return min(max(compute_critical_pair(self.base, self.original_len, rotary), 1), rotary // 2 - 1)

    def initial_divisors(self, rotary: int) -> Divisors:
        """NTK's continuation below the critical pair, `factor` from it on."""
        critical = self.critical(rotary)
        return tuple(self.stretch ** min(1.0, i / critical) for i in range(rotary // 2))

    def temperatures(self) -> tuple[float, ...]:
        """1 in short texts, the square of `attention_factor` in long ones."""
        return (1.0, (self.attention_factor or 1.0) ** 2)

    @property
    def temperature(self) -> float:
        """That of long texts."""
        return self.temperatures()[1]


def compute_critical_pair(base: float, original_len: int, head_dim: int) -> int:
    """The first pair that does not complete a rotation within L: ceil(D/2 · log_base(L / 2 pi)), counted from 0.

    Liu et al. 2023 (arXiv:2310.05209). LongRoPE2's code starts one pair earlier, at the last complete one.
    """
    return math.ceil(head_dim / 2 * math.log(max(original_len / (2 * math.pi), 1.0), base))
