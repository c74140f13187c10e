"""Rules that change the base. Sources are named with each."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from aptlab.errors import ConfigError
from aptlab.limits import PositiveInt
from aptlab.nn.positions.rope.base import Frequencies, check_choice, compute_standard_frequencies
from aptlab.nn.positions.rope.hf import HFForm, HFSource, make_hf_parameters
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
        """base', which depends on the width of what rotates of a head."""
        head_dim = self.rotary_dims(head_dim)
        if head_dim <= 2:
            raise ConfigError(f"head_dim={head_dim} is below 4, and the exponent is D/(D-2); use a wider head")
        critical = self.critical_dim or head_dim // 2 - 1
        return self.base * self.stretch ** (head_dim / (2 * check_critical(critical, head_dim)))

    def inv_freq(self, head_dim: int) -> Frequencies:
        """base'^(-2i/D), [P]."""
        return compute_standard_frequencies(self.scaled_base(head_dim), self.rotary_dims(head_dim))

    def to_hf(self, head_dim: int, *, nested: bool = False) -> HFForm:
        """The default rule with the scaled base."""
        del nested
        return write_scaled_base("ntk", self.scaled_base(head_dim))


@dataclass(frozen=True, kw_only=True)
class NTKLiu(ScaledRotation):
    """The base at which the critical pair meets only angles of training: base' = base^(log_{L/2pi}(L'/2pi)).

    Liu et al. 2023 (arXiv:2310.05209, theorem 1), the "NTK" of LongRoPE2's tables. L is original_len, L' = L · factor.
    """

    def scaled_base(self) -> float:
        """base', which depends on the lengths alone."""
        short, long = self.original_len / (2 * math.pi), self.original_len * self.stretch / (2 * math.pi)
        if short <= 1:
            raise ConfigError(f"original_len={self.original_len} is below 7 tokens (2 pi); give the trained context")
        return self.base ** (math.log(long) / math.log(short))

    def inv_freq(self, head_dim: int) -> Frequencies:
        """base'^(-2i/D), [P]."""
        return compute_standard_frequencies(self.scaled_base(), self.rotary_dims(head_dim))

    def to_hf(self, head_dim: int, *, nested: bool = False) -> HFForm:
        """The default rule with the scaled base."""
        del head_dim, nested
        return write_scaled_base("ntk_liu", self.scaled_base())


def write_scaled_base(option: str, base: float) -> HFForm:
    """The default rule of transformers with another base, and a note that names the option it stands for."""
    note = f"rope={option} is written as the default rope with its scaled base, rope_theta={base:.10g}"
    return HFForm(make_hf_parameters("default", base), note)


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
    hf_type: ClassVar[str] = "dynamic"
    hf_heads: ClassVar[tuple[str, ...]] = ("whole", "part")
    law: Literal["hf", "paper"] = "hf"

    def __post_init__(self) -> None:
        """Raises ConfigError for another law."""
        super().__post_init__()
        check_choice("law", self.law, ("hf", "paper"))

    def inv_freq(self, head_dim: int) -> Frequencies:
        """Those of texts up to original_len, [P]."""
        dims = self.rotary_dims(head_dim)
        if dims <= 2:
            raise ConfigError(f"head_dim={dims} is below 4, and the exponent is D/(D-2); use a wider head")
        return compute_standard_frequencies(self.base, dims)

    def bases(self, lengths: Any, head_dim: int) -> Any:
        """The base of each sequence, float64 like `lengths`; up to original_len exactly the plain one."""
        return self._base(lengths.clip(min=self.original_len) / self.original_len, head_dim)

    def base_at(self, length: int, head_dim: int) -> float:
        """The base of one sequence of `length` tokens."""
        return self._base(max(length, self.original_len) / self.original_len, head_dim)

    def frequencies_at(self, length: int, head_dim: int) -> Frequencies:
        """Those of a text of `length` tokens."""
        return compute_standard_frequencies(self.base_at(length, head_dim), self.rotary_dims(head_dim))

    def stretched_length(self, context: int) -> int:
        """The trained length, from which transformers counts the stretch."""
        del context
        return self.original_len

    def list_length_warnings(self, option: str, length: int) -> Iterator[str]:
        """It stretches as far as a text is long, so only a factor that was let differ is told."""
        del length
        yield from self._list_mismatches(option)

    def to_hf(self, head_dim: int, *, nested: bool = False) -> HFForm:
        """`dynamic`; the paper's law is the other one with factor 1."""
        del head_dim, nested
        factor = self.stretch if self.law == "hf" else 1.0
        note = "transformers changes the base of rope=dynamic under cached keys: long answers differ from a full pass"
        return HFForm(make_hf_parameters("dynamic", float(self.base), factor=factor), note)

    @classmethod
    def from_hf(cls, source: HFSource) -> Dynamic:
        """transformers stretches from the length that the config gives."""
        factor, length = source.read_number("factor"), source.read_max_positions()
        return cls(base=source.base, factor=factor, original_len=length, fraction=source.fraction)

    def _base(self, ratio: Any, head_dim: int) -> Any:
        dims = self.rotary_dims(head_dim)
        grown = self.stretch * ratio - (self.stretch - 1) if self.law == "hf" else ratio
        return self.base * grown ** (dims / (dims - 2))


def check_critical(critical: int, head_dim: int) -> int:
    """The pair, if there are pairs on both sides of it; ConfigError names those that there are."""
    if not 1 <= critical < head_dim // 2:
        raise ConfigError(
            f"critical_dim={critical} is no pair that can be critical; with head_dim={head_dim} use 1 to "
            f"{head_dim // 2 - 1}"
        )
    return critical
