"""Rules whose logits shrink with distance, or whose vectors shrink with position."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from aptlab.limits import Positive
from aptlab.nn.positions.rope.base import Frequencies, Rotation, check_choice, compute_standard_frequencies


@dataclass(frozen=True, kw_only=True)
class XPos(Rotation):
    """Rotation with a decay per pair: logit of pair i times zeta_i^((m - n) / scale_base), for causal models.

    zeta = published  zeta_i = (2i / D + gamma) / (1 + gamma)      (Sun et al. 2022, arXiv:2212.10554, eq. 16)
    zeta = angle      zeta_i = exp(-theta_i · scale_base / 100): `xpos_angle_decay` with the opposite sign on keys,
                      which makes it relative
    Attention centres the two powers on each block of queries, so they are finite at any length.
    """

    gamma: Positive = 0.4
    scale_base: Positive = 512.0
    zeta: Literal["published", "angle"] = "published"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("zeta", self.zeta, ("published", "angle"))

    def inv_freq(self, head_dim: int) -> Frequencies:
        """base^(-2i/D), [P]."""
        return compute_standard_frequencies(self.base, head_dim)

    def decay(self, head_dim: int) -> Frequencies:
        """zeta_i^(1 / scale_base), [P]."""
        if self.zeta == "angle":
            return tuple(math.exp(-theta / 100) for theta in self.inv_freq(head_dim))
        zetas = ((2 * i / head_dim + self.gamma) / (1 + self.gamma) for i in range(head_dim // 2))
        return tuple(zeta ** (1 / self.scale_base) for zeta in zetas)


@dataclass(frozen=True, kw_only=True)
class XPosAngleDecay(Rotation):
    """cos and sin times exp(-angle / 100) on queries and keys alike: the seeds' "xPos". It is NOT relative.

    The logit of pair i shrinks by exp(-(m + n) theta_i / 100): fast pairs are gone after a thousand tokens.
    """

    relative: ClassVar[bool] = False
    way_to_relative: ClassVar[str] = "rope=xpos is relative, also with rope.zeta=angle"
    rate: Positive = 0.01

    def inv_freq(self, head_dim: int) -> Frequencies:
        """base^(-2i/D), [P]."""
        return compute_standard_frequencies(self.base, head_dim)

    def amplitude(self, head_dim: int) -> Frequencies:
        """theta_i · rate, [P]."""
        return tuple(theta * self.rate for theta in self.inv_freq(head_dim))
