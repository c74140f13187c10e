"""Formulas of the seeds that differ from the methods whose names they carry. Each says how it differs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from aptlab.errors import ConfigError
from aptlab.limits import Positive
from aptlab.nn.positions.layer import LayerPositions
from aptlab.nn.positions.rope.base import Frequencies, Rope, Rotation, check_choice, compute_standard_frequencies
from aptlab.nn.positions.rope.standard import Standard

BASES = (10_000.0, 20_000.0, 30_000.0, 40_000.0)


@dataclass(frozen=True, kw_only=True)
class YaRNUniform(Rotation):
    """theta_i · alpha · beta for all pairs: position interpolation with factor 1 / (alpha · beta), no YaRN at all.

    The seeds multiply frequencies by alpha and angles by beta. Pairs are not treated by parts and there is no
    temperature; with the seeds' 1.2 and 0.8 the context even shrinks by 4 %.
    """

    alpha: Positive = 1.2
    beta: Positive = 0.8

    def inv_freq(self, head_dim: int) -> Frequencies:
        return tuple(f * self.alpha * self.beta for f in compute_standard_frequencies(self.base, head_dim))


@dataclass(frozen=True, kw_only=True)
class LinearHarmonic(Rope):
    """theta_i = 1 / (1 + 2i): the seeds' "linear RoPE", which is not position interpolation.

    The longest wavelength is 2 pi (D - 1): 396 tokens for D = 64. Positions farther apart look alike.
    """

    def inv_freq(self, head_dim: int) -> Frequencies:
        compute_standard_frequencies(10_000.0, head_dim)  # the same errors for odd heads
        return tuple(1.0 / (1 + 2 * i) for i in range(head_dim // 2))


@dataclass(frozen=True, kw_only=True)
class FourBaseRope(Rope):
    """What the seeds' four-base rules share."""

    bases: tuple[float, ...] = BASES
    layout: Literal["half", "interleaved"] = "half"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "bases", tuple(float(base) for base in self.bases))
        check_choice("layout", self.layout, ("half", "interleaved"))
        if not self.bases or min(self.bases) <= 1:
            raise ConfigError(f"rope.bases={list(self.bases)} must be numbers larger than 1, such as {list(BASES)}")

    def inv_freq(self, head_dim: int) -> Frequencies:
        return compute_standard_frequencies(self.bases[0], head_dim)


@dataclass(frozen=True, kw_only=True)
class IRopePhase(FourBaseRope):
    """Base number position % 4 for every token: the seeds' iRoPE as written. It is NOT relative.

    The angle between m and n holds a term m (theta_m - theta_n) that grows without bound unless m and n agree
    modulo 4. Llama 4's iRoPE is rope=irope; rope=irope_pairs keeps the four bases and the relative property.
    """

    relative: ClassVar[bool] = False

    def regimes(self, head_dim: int) -> tuple[Frequencies, ...]:
        return tuple(compute_standard_frequencies(base, head_dim) for base in self.bases)

    def temperatures(self) -> tuple[float, ...]:
        return (1.0,) * len(self.bases)

    def regime(self, positions: Any, lengths: Any) -> Any:
        del lengths
        return positions % len(self.bases)


@dataclass(frozen=True, kw_only=True)
class IRopePairs(FourBaseRope):
    """Base number i % 4 for pair i: the seeds' four bases, with logits that depend on distance alone."""

    def inv_freq(self, head_dim: int) -> Frequencies:
        sets = [compute_standard_frequencies(base, head_dim) for base in self.bases]
        return tuple(sets[i % len(sets)][i] for i in range(head_dim // 2))


@dataclass(frozen=True, kw_only=True)
class IRopeHeads(FourBaseRope):
    """Base number k % 4 of the seeds' four for key head k and its query heads; with one key head it is the first."""

    def regimes(self, head_dim: int) -> tuple[Frequencies, ...]:
        return tuple(compute_standard_frequencies(base, head_dim) for base in self.bases)

    def temperatures(self) -> tuple[float, ...]:
        return (1.0,) * len(self.bases)

    def head_regimes(self, groups: int) -> tuple[int, ...]:
        return tuple(group % len(self.bases) for group in range(groups))


@dataclass(frozen=True, kw_only=True)
class IRopeLayers(FourBaseRope):
    """Base number l % 4 of the seeds' four for layer l, with logits that depend on distance alone."""

    def for_layer(self, layer: int) -> LayerPositions:
        return LayerPositions(rule=Standard(base=self.bases[layer % len(self.bases)], layout=self.layout))
