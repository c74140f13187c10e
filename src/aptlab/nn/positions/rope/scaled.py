"""Lengths that a scaling rule goes from and to, and what contradicts them."""

from __future__ import annotations

from dataclasses import dataclass

from aptlab.errors import ConfigError
from aptlab.limits import AtLeastOne, PositiveInt
from aptlab.nn.positions.rope.base import Rotation

CLOSE = 0.01  # relative difference up to which a factor and a ratio of lengths agree


@dataclass(frozen=True, kw_only=True)
class ScaledRotation(Rotation):
    """What rules share that stretch a trained context.

    factor         new context / original_len; None = target_len / original_len, and 1 if that is less
    original_len   context the weights were trained with
    target_len     context wanted; None = original_len · factor. A factor that differs from the ratio of both lengths by
                   more than 1 % is an error
    allow_factor_mismatch  let it differ
    """

    factor: AtLeastOne | None = 4.0
    original_len: PositiveInt = 4096
    target_len: PositiveInt | None = None
    allow_factor_mismatch: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.factor is None:
            if self.target_len is None:
                raise ConfigError("factor=null needs target_len; set one of them")
            object.__setattr__(self, "factor", max(1.0, self.target_len / self.original_len))
        if self.target_len is None or self.allow_factor_mismatch:
            return
        ratio = self.target_len / self.original_len
        wanted = max(1.0, ratio)  # a shorter context needs no stretching
        if abs(self.stretch / wanted - 1) > CLOSE:
            raise ConfigError(
                f"factor={self.factor:g} contradicts target_len={self.target_len} and "
                f"original_len={self.original_len}, whose ratio is {ratio:g}; use factor=null or {wanted:g}, "
                f"original_len={round(self.target_len / self.stretch)}, or allow_factor_mismatch=true"
            )

    @property
    def stretch(self) -> float:
        """The factor as a number."""
        assert self.factor is not None
        return float(self.factor)
