"""Searched divisors per pair: LongRoPE (Ding et al. 2024, arXiv:2402.13753) and LongRoPE2 (arXiv:2502.20082)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from aptlab.errors import ConfigError
from aptlab.limits import AtLeastOne, NonNegativeInt, Positive, PositiveInt
from aptlab.nn.rope.base import Frequencies, Rotation, standard_frequencies


@dataclass(frozen=True, kw_only=True)
class LongRoPE(Rotation):
    """theta_i / lambda_i with two lists of divisors: `short` up to `original_len` tokens, `long` beyond.

    short, long       head_dim / 2 divisors >= 1; None = all ones, and YaRN's (the search's first guess)
    attention_factor  factor on queries and keys each; None = sqrt(1 + ln s / ln L), as Phi-3 has it
    retained          first tokens of a long text that keep the unscaled frequencies (n^ of the paper)
    """

    factor: AtLeastOne = 4.0
    original_len: PositiveInt = 4096
    short: tuple[float, ...] | None = None
    long: tuple[float, ...] | None = None
    attention_factor: Positive | None = None
    retained: NonNegativeInt = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("short", "long"):
            given = getattr(self, name)
            if given is not None:
                object.__setattr__(self, name, tuple(float(value) for value in given))

    @property
    def relative(self) -> bool:  # type: ignore[override]
        """Retained tokens turn by other frequencies than the rest."""
        return self.retained == 0

    @property
    def temperature(self) -> float:
        if self.attention_factor is not None:
            return self.attention_factor**2
        return 1 + math.log(self.factor) / math.log(self.original_len)

    def inv_freq(self, head_dim: int) -> Frequencies:
        return self.regimes(head_dim)[1]

    def regimes(self, head_dim: int) -> tuple[Frequencies, ...]:
        standard = standard_frequencies(self.base, head_dim)
        short = self._divisors("short", head_dim) or (1.0,) * len(standard)
        long = self._divisors("long", head_dim) or self._guess(head_dim)
        regimes = tuple(tuple(f / d for f, d in zip(standard, each)) for each in (short, long))
        return (*regimes, standard) if self.retained else regimes

    def _guess(self, head_dim: int) -> tuple[float, ...]:
        from aptlab.nn.rope.fixed import YaRN

        standard = standard_frequencies(self.base, head_dim)
        yarn = YaRN(base=self.base, factor=self.factor, original_len=self.original_len).inv_freq(head_dim)
        return tuple(f / y for f, y in zip(standard, yarn, strict=True))

    def _divisors(self, name: str, head_dim: int) -> tuple[float, ...] | None:
        given = getattr(self, name)
        if given is not None and len(given) != head_dim // 2:
            raise ConfigError(f"rope.{name} has {len(given)} divisors and head_dim={head_dim} needs {head_dim // 2}")
        return given

    def regime(self, positions: Any, lengths: Any) -> Any:
        chosen = (lengths > self.original_len).long()
        return chosen + (positions < self.retained).long() * chosen if self.retained else chosen
