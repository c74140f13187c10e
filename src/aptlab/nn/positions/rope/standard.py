"""The rule as published, none, and interpolation. Sources are named with each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from aptlab.errors import ConfigError
from aptlab.limits import Fraction, Positive, RotaryFraction
from aptlab.nn.positions.layer import LayerPositions
from aptlab.nn.positions.rope.base import (
    Frequencies,
    Rope,
    Rotation,
    compute_standard_frequencies,
    count_rotary_dims,
    round_up_fraction,
)
from aptlab.nn.positions.rope.hf import HFForm, HFRefusal, HFSource, make_hf_parameters
from aptlab.nn.positions.rope.scaled import ScaledRotation


@dataclass(frozen=True, kw_only=True)
class NoRope(Rope):
    """No rotary positions (NoPE): a causal model finds order by itself (Kazemnejad et al. 2023, arXiv:2305.19466)."""

    def inv_freq(self, head_dim: int) -> Frequencies:
        """None: raises ConfigError."""
        raise ConfigError("this rule has no frequencies; choose a rope option such as rope=standard")

    def hf_refusal(self, head_dim: int) -> HFRefusal | None:
        """A layout has layers without rotation, but no rule without frequencies."""
        del head_dim
        return HFRefusal("has no frequencies")

    def for_layer(self, layer: int) -> LayerPositions:
        """Nothing in every layer."""
        del layer
        return LayerPositions()


@dataclass(frozen=True, kw_only=True)
class Standard(Rotation):
    """Rotary embedding as published: theta_i = base^(-2i/D) (Su et al. 2021, arXiv:2104.09864, eq. 15)."""

    hf_type: ClassVar[str] = "default"

    def inv_freq(self, head_dim: int) -> Frequencies:
        """base^(-2i/D), [P]."""
        return compute_standard_frequencies(self.base, head_dim)

    def to_hf(self, head_dim: int, *, nested: bool = False) -> HFForm:
        """`default`, with its base."""
        del head_dim, nested
        return HFForm(make_hf_parameters("default", float(self.base)))

    @classmethod
    def from_hf(cls, source: HFSource) -> Standard:
        """The plain rule."""
        return cls(base=source.base)


@dataclass(frozen=True, kw_only=True)
class Linear(ScaledRotation):
    """Position interpolation: every frequency divided by `factor` (Chen et al. 2023, arXiv:2306.15595, eq. 4)."""

    hf_type: ClassVar[str] = "linear"
    hf_heads: ClassVar[tuple[str, ...]] = ("whole", "part")

    def inv_freq(self, head_dim: int) -> Frequencies:
        """base^(-2i/D) / factor, [P]."""
        return tuple(f / self.stretch for f in compute_standard_frequencies(self.base, self.rotary_dims(head_dim)))

    def to_hf(self, head_dim: int, *, nested: bool = False) -> HFForm:
        """`linear`, with its factor."""
        del head_dim, nested
        return HFForm(make_hf_parameters("linear", float(self.base), factor=self.stretch))

    def count_hf_positions(self, context: int) -> int:
        """The trained length: readers multiply it by the factor."""
        del context
        return self.original_len

    @classmethod
    def from_hf(cls, source: HFSource) -> Linear:
        """Where no key gives the trained length it is max_position_embeddings, which transformers says to leave alone.

        Vicuna 1.5 16k: max_position_embeddings 4096 and factor 4.
        """
        factor, length = source.read_number("factor"), source.read_original_length()
        return cls(base=source.base, factor=factor, original_len=length, fraction=source.fraction)


@dataclass(frozen=True, kw_only=True)
class Partial(Rotation):
    """The first `fraction` of a head's dims rotate, with exponents over these alone; the rest carries content.

    As in GPT-J, GPT-NeoX and Phi (Black et al. 2022, arXiv:2204.06745, section 2.1, with a quarter).
    """

    hf_type: ClassVar[str] = "default"
    hf_heads: ClassVar[tuple[str, ...]] = ("part",)
    fraction: RotaryFraction = 0.25

    def inv_freq(self, head_dim: int) -> Frequencies:
        """Those of the dims that rotate, fewer than D/2."""
        return compute_standard_frequencies(self.base, count_rotary_dims(head_dim, self.fraction))

    def to_hf(self, head_dim: int, *, nested: bool = False) -> HFForm:
        """`default`, of a part of each head."""
        del head_dim, nested
        return HFForm(make_hf_parameters("default", float(self.base), partial_rotary_factor=float(self.fraction)))

    @classmethod
    def from_hf(cls, source: HFSource) -> Partial:
        """The plain rule on a part of each head."""
        return cls(base=source.base, fraction=source.fraction)


@dataclass(frozen=True, kw_only=True)
class Proportional(Rotation):
    """The fastest `fraction` of the pairs rotate as in the whole head, the slow rest does not (p-RoPE).

    Barbero et al. 2024 (arXiv:2410.06205, section 6); as in Gemma 4. Frequencies keep their exponents over the whole
    head, which is how this differs from `partial`; `factor` divides them as interpolation does.
    """

    hf_type: ClassVar[str] = "proportional"
    hf_heads: ClassVar[tuple[str, ...]] = ("any",)
    fraction: Fraction = 0.25
    factor: Positive = 1.0

    def to_hf(self, head_dim: int, *, nested: bool = False) -> HFForm:
        """`proportional`, with its fraction and factor."""
        del head_dim, nested
        values = {"partial_rotary_factor": float(self.fraction), "factor": float(self.factor)}
        return HFForm(make_hf_parameters("proportional", float(self.base), **values))

    @classmethod
    def from_hf(cls, source: HFSource) -> Proportional:
        """A factor that is not given divides nothing."""
        factor = source.read_number("factor") if "factor" in source.parameters else 1.0
        if "partial_rotary_factor" in source.parameters:
            source.read_number("partial_rotary_factor")  # null is no fraction
        return cls(base=source.base, fraction=source.fraction, factor=factor)

    def inv_freq(self, head_dim: int) -> Frequencies:
        """As the standard rule's, 0 for the pairs that stand still, [P]."""
        standard = compute_standard_frequencies(self.base, head_dim)
        rotary_pairs = int(self.fraction * head_dim // 2)
        if rotary_pairs == 0:
            raise ConfigError(
                f"fraction={self.fraction} of the {head_dim // 2} pairs of head_dim={head_dim} rotates none; "
                f"use fraction={round_up_fraction(2, head_dim):g} or more, or rope=none"
            )
        return tuple(f / self.factor if i < rotary_pairs else 0.0 for i, f in enumerate(standard))
