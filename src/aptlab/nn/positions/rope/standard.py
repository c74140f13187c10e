"""The rule as published, none, and interpolation. Sources are named with each."""

from __future__ import annotations

import math
from dataclasses import dataclass

from aptlab.errors import ConfigError
from aptlab.limits import Fraction, Positive
from aptlab.nn.positions.layer import LayerPositions
from aptlab.nn.positions.rope.base import Frequencies, Rope, Rotation, compute_standard_frequencies
from aptlab.nn.positions.rope.scaled import ScaledRotation


@dataclass(frozen=True, kw_only=True)
class NoRope(Rope):
    """No rotary positions (NoPE): a causal model finds order by itself (Kazemnejad et al. 2023, arXiv:2305.19466)."""

    def inv_freq(self, head_dim: int) -> Frequencies:
        raise ConfigError("rope=none has no frequencies; choose a rope option such as rope=standard")

    def for_layer(self, layer: int) -> LayerPositions:
        del layer
        return LayerPositions()


@dataclass(frozen=True, kw_only=True)
class Standard(Rotation):
    """Rotary embedding as published: theta_i = base^(-2i/D) (Su et al. 2021, arXiv:2104.09864, eq. 15)."""

    def inv_freq(self, head_dim: int) -> Frequencies:
        return compute_standard_frequencies(self.base, head_dim)


@dataclass(frozen=True, kw_only=True)
class Linear(ScaledRotation):
    """Position interpolation: every frequency divided by `factor` (Chen et al. 2023, arXiv:2306.15595, eq. 4)."""

    def inv_freq(self, head_dim: int) -> Frequencies:
        return tuple(f / self.stretch for f in compute_standard_frequencies(self.base, head_dim))


def round_up_fraction(dims: int, head_dim: int) -> float:
    """The least fraction of three digits that has `dims` dims of a head."""
    return math.ceil(1000 * dims / head_dim) / 1000


def count_rotary_dims(head_dim: int, fraction: float) -> int:
    """The first `fraction` of a head's dims; ConfigError unless they are pairs."""
    turning = int(head_dim * fraction)
    if turning < 2 or turning % 2:
        raise ConfigError(
            f"rope.fraction={fraction} of head_dim={head_dim} is {turning} dims, and pairs need an even "
            f"number of at least 2; use rope.fraction={round_up_fraction(max(2, turning + turning % 2), head_dim):g}"
        )
    return turning


@dataclass(frozen=True, kw_only=True)
class Partial(Rotation):
    """The first `fraction` of a head's dims turn, with exponents over these alone; the rest carries content.

    As in GPT-J, GPT-NeoX and Phi (Black et al. 2022, arXiv:2204.06745, section 2.1, with a quarter).
    """

    fraction: Fraction = 0.25

    def inv_freq(self, head_dim: int) -> Frequencies:
        return compute_standard_frequencies(self.base, count_rotary_dims(head_dim, self.fraction))


@dataclass(frozen=True, kw_only=True)
class Proportional(Rotation):
    """The fastest `fraction` of the pairs turn as in the whole head, the slow rest does not (p-RoPE).

    Barbero et al. 2024 (arXiv:2410.06205, section 6); as in Gemma 4. Frequencies keep their exponents over the whole
    head, which is how this differs from `partial`; `factor` divides them as interpolation does.
    """

    fraction: Fraction = 0.25
    factor: Positive = 1.0

    def inv_freq(self, head_dim: int) -> Frequencies:
        standard = compute_standard_frequencies(self.base, head_dim)
        turning = int(self.fraction * head_dim // 2)
        if turning == 0:
            raise ConfigError(
                f"rope.fraction={self.fraction} of the {head_dim // 2} pairs of size.head_dim={head_dim} turns none; "
                f"use rope.fraction={round_up_fraction(2, head_dim):g} or more, or rope=none"
            )
        return tuple(f / self.factor if i < turning else 0.0 for i, f in enumerate(standard))
