"""Lengths that a scaling rule goes from and to, and what contradicts them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from aptlab.errors import ConfigError
from aptlab.limits import AtLeastOne, PositiveInt, RotaryFraction
from aptlab.nn.positions.rope.base import Rotation, Scaling, count_rotary_dims

CLOSE = 0.01  # relative difference up to which a factor and a ratio of lengths agree


@dataclass(frozen=True, kw_only=True)
class ScaledRotation(Rotation):
    """What rules share that stretch a trained context.

    factor         new context / original_len; None = target_len / original_len, and 1 if that is less
    original_len   context the weights were trained with
    target_len     context wanted; None = original_len · factor. A factor that differs from the ratio of both lengths by
                   more than 1 % is an error
    allow_factor_mismatch  let it differ
    fraction       of a head's dims that rotate, the first ones: the rule is that of a head of so many dims, as
                   transformers computes it for GPT-NeoX and GLM-4. There a temperature is meant for them alone,
                   temperature_on=cos_sin
    """

    factor: AtLeastOne | None = 4.0
    original_len: PositiveInt = 4096
    target_len: PositiveInt | None = None
    allow_factor_mismatch: bool = False
    fraction: RotaryFraction = 1.0

    def __post_init__(self) -> None:
        """Raises ConfigError where factor and lengths contradict each other."""
        super().__post_init__()
        if self.factor is None:
            if self.target_len is None:
                raise ConfigError("factor=null needs target_len; set one of them")
            object.__setattr__(self, "factor", max(1.0, self.target_len / self.original_len))
        if self.target_len is None or self.allow_factor_mismatch:
            return
        ratio = self.target_len / self.original_len
        least = max(1.0, ratio)  # a shorter context needs no stretching
        if abs(self.stretch / least - 1) > CLOSE:
            raise ConfigError(
                f"factor={self.factor:g} contradicts target_len={self.target_len} and "
                f"original_len={self.original_len}, whose ratio is {ratio:g}; use factor=null or {least:g}, "
                f"original_len={round(self.target_len / self.stretch)}, or allow_factor_mismatch=true"
            )

    def rotary_dims(self, head_dim: int) -> int:
        """How many dims of a head rotate."""
        return head_dim if self.fraction == 1 else count_rotary_dims(head_dim, self.fraction)

    @property
    def stretch(self) -> float:
        """The factor as a number."""
        assert self.factor is not None
        return float(self.factor)

    @property
    def scaling(self) -> Scaling:
        """Its factor and the trained length."""
        return Scaling(self.stretch, self.original_len)

    def stretched_length(self, context: int) -> int:
        """original_len · factor, whatever the run's context; more than original_len, so that readers see a stretch."""
        del context
        return max(round(self.original_len * self.stretch), self.original_len + 1)

    def list_length_warnings(self, option: str, length: int) -> Iterator[str]:
        """A text longer than the stretched context, and a factor that was let differ from the lengths."""
        stretched = self.original_len * self.stretch
        if length > stretched * (1 + CLOSE):
            yield (
                f"rope={option}: original_len={self.original_len:,} x factor={self.stretch:g} reaches "
                f"{round(stretched):,} tokens and the run reads up to {length:,}; use "
                f"rope.factor={length / self.original_len:.4g}"
            )
        yield from self._list_mismatches(option)

    def _list_mismatches(self, option: str) -> Iterator[str]:
        stretched = self.original_len * self.stretch
        if self.target_len is None or abs(stretched / max(self.target_len, self.original_len) - 1) <= CLOSE:
            return
        yield (
            f"rope={option}: rope.allow_factor_mismatch=true lets factor={self.stretch:g} reach {round(stretched):,} "
            f"tokens where target_len={self.target_len:,}; rope.factor=null follows from the lengths"
        )
