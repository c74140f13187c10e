"""Searched divisors per pair: LongRoPE (Ding et al. 2024, arXiv:2402.13753) and LongRoPE2 (arXiv:2502.20082)."""

from __future__ import annotations

import abc
import itertools
import math
from dataclasses import dataclass
from typing import Any

from aptlab.errors import ConfigError
from aptlab.limits import Fraction, NonNegativeInt, Positive, PositiveInt
from aptlab.nn.positions.rope.base import Frequencies, compute_standard_frequencies
from aptlab.nn.positions.rope.by_parts import YaRN
from aptlab.nn.positions.rope.ntk import check_critical
from aptlab.nn.positions.rope.scaled import ScaledRotation
from aptlab.nn.positions.rope.standard import count_rotary_dims
from aptlab.nn.positions.rope.temperature import compute_su_temperature

Divisors = tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class SearchedRotation(ScaledRotation, abc.ABC):
    """theta_i / lambda_i with two lists of divisors: `short` up to `original_len` tokens, `long` beyond.

    Which list a token turns by follows from the length of its own sequence, so rows of a batch and documents of a
    packed row choose for themselves.

    With `fraction` below 1 the first dims of a head turn alone, with exponents over these, as in Phi-4-mini (0.75);
    its factor is meant for them alone, temperature_on=cos_sin.
    """

    short: tuple[float, ...] | None = None
    long: tuple[float, ...] | None = None
    attention_factor: Positive | None = None
    fraction: Fraction = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("short", "long"):
            given = getattr(self, name)
            if given is None:
                continue
            object.__setattr__(self, name, tuple(float(value) for value in given))
            wrong = [value for value in getattr(self, name) if not 0 < value < math.inf]
            if wrong:
                raise ConfigError(
                    f"{name} holds a divisor that is no positive number: {wrong[0]:g}; 1 keeps a frequency"
                )

    @abc.abstractmethod
    def guess(self, turning: int) -> Divisors:
        """Long divisors where none are given, for the dims of a head that turn."""

    def turning(self, head_dim: int) -> int:
        """How many dims of a head turn."""
        return head_dim if self.fraction == 1 else count_rotary_dims(head_dim, self.fraction)

    def inv_freq(self, head_dim: int) -> Frequencies:
        return self.regimes(head_dim)[1]

    def regimes(self, head_dim: int) -> tuple[Frequencies, ...]:
        turning = self.turning(head_dim)
        standard = compute_standard_frequencies(self.base, turning)
        short = self._divisors("short", turning) or (1.0,) * len(standard)
        long = self._divisors("long", turning) or self.guess(turning)
        return tuple(tuple(f / d for f, d in zip(standard, each)) for each in (short, long))

    def _divisors(self, name: str, turning: int) -> Divisors | None:
        given = getattr(self, name)
        if given is not None and len(given) != turning // 2:
            what = f"a head of {turning} dims" if self.fraction == 1 else f"a head of which {turning} dims turn"
            raise ConfigError(
                f"{name} has {len(given)} divisors, and {what} needs {turning // 2}; it was found for another "
                "model: search again with `aptlab search rope=longrope2 ckpt=… target=…`"
            )
        return given

    def regime(self, positions: Any, lengths: Any) -> Any:
        del positions
        return (lengths > self.original_len).long()


@dataclass(frozen=True, kw_only=True)
class LongRoPE(SearchedRotation):
    """Divisors found by an evolutionary search on perplexity (Ding et al. 2024, arXiv:2402.13753).

    short, long       a divisor per pair; None = all ones, and YaRN's, the search's first guess
    attention_factor  factor on queries and keys each, at every length; None = sqrt(1 + ln s / ln L), as in Phi-3
    retained          first tokens of a long text that keep the plain frequencies (n^): no longer relative
    """

    retained: NonNegativeInt = 0

    @property
    def relative(self) -> bool:  # type: ignore[override]
        """Retained tokens turn by other frequencies than the rest."""
        return self.retained == 0

    @property
    def temperature(self) -> float:
        if self.attention_factor is not None:
            return self.attention_factor**2
        return compute_su_temperature(self.stretch, self.original_len) if self.stretch > 1 else 1.0

    def guess(self, turning: int) -> Divisors:
        """YaRN's divisors."""
        yarn = YaRN(base=self.base, factor=self.stretch, original_len=self.original_len).inv_freq(turning)
        return tuple(f / y for f, y in zip(compute_standard_frequencies(self.base, turning), yarn, strict=True))

    def regimes(self, head_dim: int) -> tuple[Frequencies, ...]:
        pair = super().regimes(head_dim)
        return (*pair, compute_standard_frequencies(self.base, self.turning(head_dim))) if self.retained else pair

    def temperatures(self) -> tuple[float, ...]:
        return (self.temperature,) * (3 if self.retained else 2)

    def regime(self, positions: Any, lengths: Any) -> Any:
        chosen = super().regime(positions, lengths)
        return chosen + chosen * (positions < self.retained).long() if self.retained else chosen


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
            given = getattr(self, name) or ()
            if min(given, default=1.0) < 1:
                raise ConfigError(
                    f"{name} holds {min(given):g}, and divisors of longrope2 are at least 1, for no pair turns "
                    "faster than in training; use rope=longrope for a published list with smaller ones"
                )
            falls = [i + 1 for i, (a, b) in enumerate(itertools.pairwise(given)) if b < a]
            if falls:
                raise ConfigError(
                    f"{name} falls at pair {falls[0]}: {given[falls[0] - 1]} to {given[falls[0]]}; divisors of "
                    "longrope2 rise from pair to pair; use rope=longrope for a list that does not"
                )

    def critical(self, turning: int) -> int:
        """d_rcd as a pair index, of the dims that turn."""
        if self.critical_dim is not None:
            return check_critical(self.critical_dim, turning)
        return min(max(compute_critical_pair(self.base, self.original_len, turning), 1), turning // 2 - 1)

    def guess(self, turning: int) -> Divisors:
        """NTK's continuation below the critical pair, `factor` from it on."""
        critical = self.critical(turning)
        return tuple(self.stretch ** min(1.0, i / critical) for i in range(turning // 2))

    def temperatures(self) -> tuple[float, ...]:
        return (1.0, (self.attention_factor or 1.0) ** 2)

    @property
    def temperature(self) -> float:
        return self.temperatures()[1]


def compute_critical_pair(base: float, original_len: int, head_dim: int) -> int:
    """The first pair that does not complete a turn within L: ceil(D/2 · log_base(L / 2 pi)), counted from 0.

    Liu et al. 2023 (arXiv:2310.05209). LongRoPE2's code starts one pair earlier, at the last complete one.
    """
    return math.ceil(head_dim / 2 * math.log(max(original_len / (2 * math.pi), 1.0), base))
