"""Lengths that a scaling rule goes from and to, and what contradicts them."""

from __future__ import annotations

from dataclasses import dataclass

from aptlab.errors import ConfigError
from aptlab.limits import AtLeastOne, PositiveInt
from aptlab.nn.rope.base import Rotation

CLOSE = 0.01  # relative difference up to which a factor and a ratio of lengths agree


@dataclass(frozen=True, kw_only=True)
class Scaled(Rotation):
    """What rules share that stretch a trained context.

    factor         new context / original_len; None = target_len / original_len
    original_len   context the weights were trained with
    target_len     context wanted; None = original_len · factor
    allow_factor_mismatch  let factor differ from target_len / original_len
    """

    factor: AtLeastOne | None = 4.0
    original_len: PositiveInt = 4096
    target_len: PositiveInt | None = None
    allow_factor_mismatch: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.factor is None:
            if self.target_len is None:
                raise ConfigError("rope.factor=null needs rope.target_len; set one of them")
            object.__setattr__(self, "factor", max(1.0, self.target_len / self.original_len))
        if self.target_len is None or self.allow_factor_mismatch:
            return
        ratio = max(1.0, self.target_len / self.original_len)
        if abs(self.factor / ratio - 1) > CLOSE:  # type: ignore[operator]
            raise ConfigError(
                f"rope.factor={self.factor:g} contradicts rope.target_len={self.target_len} and "
                f"rope.original_len={self.original_len}, whose ratio is {ratio:g}; use rope.factor=null or {ratio:g}, "
                f"rope.original_len={round(self.target_len / self.factor)}, or rope.allow_factor_mismatch=true"  # type: ignore[operator]
            )

    @property
    def stretch(self) -> float:
        """The factor as a number."""
        assert self.factor is not None
        return float(self.factor)
