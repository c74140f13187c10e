"""Rules that change the base. Sources are named with each."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from aptlab.errors import ConfigError
from aptlab.limits import PositiveInt
from aptlab.nn.positions.rope.base import Frequencies, check_choice, compute_standard_frequencies
from aptlab.nn.positions.rope.scaled import ScaledRotation


@dataclass(frozen=True, kw_only=True)
class NTK(ScaledRotation):
    """NTK-aware scaling: base' = base · factor^(D/(D-2)) (bloc97 2023; Peng et al. 2023, arXiv:2309.00071, eq. 16).

    The fastest pair keeps its frequency, the slowest is divided by exactly `factor`. With `critical_dim` c it is pair
    c that is divided by exactly `factor`, base' = base · factor^(D/2c), and slower ones by more (NTK-rcd of LongRoPE2,
    Shang et al. 2025, arXiv:2502.20082, table 6).
    """

    critical_dim: PositiveInt | None = None

    def scaled_base(self, head_dim: int) -> float:
        if head_dim <= 2:
            raise ConfigError(f"size.head_dim={head_dim}: rope=ntk needs at least 4, its exponent is D/(D-2)")
        critical = self.critical_dim or head_dim // 2 - 1
        return self.base * self.stretch ** (head_dim / (2 * check_critical(critical, head_dim)))

    def inv_freq(self, head_dim: int) -> Frequencies:
        return compute_standard_frequencies(self.scaled_base(head_dim), head_dim)


@dataclass(frozen=True, kw_only=True)
class NTKLiu(ScaledRotation):
    """The base at which the critical pair meets only angles of training: base' = base^(log_{L/2pi}(L'/2pi)).

    Liu et al. 2023 (arXiv:2310.05209, theorem 1), the "NTK" of LongRoPE2's tables. L is original_len, L' = L · factor.
    """

    def scaled_base(self) -> float:
        short, long = self.original_len / (2 * math.pi), self.original_len * self.stretch / (2 * math.pi)
        if short <= 1:
            raise ConfigError(f"rope.original_len={self.original_len}: rope=ntk_liu needs at least 7 tokens (2 pi)")
        return self.base ** (math.log(long) / math.log(short))

    def inv_freq(self, head_dim: int) -> Frequencies:
        return compute_standard_frequencies(self.scaled_base(), head_dim)


@dataclass(frozen=True, kw_only=True)
class Dynamic(ScaledRotation):
    """NTK scaling by the length l of each sequence; up to `original_len` the plain rule (emozilla 2023).

    law = hf     base' = base · (factor · l / L - (factor - 1))^(D/(D-2)), as transformers and every checkpoint
    law = paper  base' = base · (l / L)^(D/(D-2)): "Dynamic NTK" of Peng et al. 2023 (arXiv:2309.00071, section 3.3);
                 `factor` has no part in it
    The length is that of the sequence with what is still to be generated, so keys in a cache fit later queries;
    transformers changes the base under cached keys.
    """

    rotary_class: ClassVar[str] = "aptlab.nn.positions.rotary:DynamicRotary"
    law: Literal["hf", "paper"] = "hf"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("law", self.law, ("hf", "paper"))

    def inv_freq(self, head_dim: int) -> Frequencies:
        if head_dim <= 2:
            raise ConfigError(f"size.head_dim={head_dim}: rope=dynamic needs at least 4, its exponent is D/(D-2)")
        return compute_standard_frequencies(self.base, head_dim)

    def bases(self, lengths: Any, head_dim: int) -> Any:
        """The base of each sequence, float64 like `lengths`; up to original_len exactly the plain one."""
        return self._base(lengths.clip(min=self.original_len) / self.original_len, head_dim)

    def base_at(self, length: int, head_dim: int) -> float:
        """The base of one sequence of `length` tokens."""
        return self._base(max(length, self.original_len) / self.original_len, head_dim)

    def _base(self, ratio: Any, head_dim: int) -> Any:
        grown = self.stretch * ratio - (self.stretch - 1) if self.law == "hf" else ratio
        return self.base * grown ** (head_dim / (head_dim - 2))


def check_critical(critical: int, head_dim: int) -> int:
    if not 1 <= critical < head_dim // 2:
        raise ConfigError(
            f"rope.critical_dim={critical} is no pair that can be critical; with head_dim={head_dim} use 1 to "
            f"{head_dim // 2 - 1}"
        )
    return critical
