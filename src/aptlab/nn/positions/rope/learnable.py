"""Rules whose frequencies are learned; the numbers live in `aptlab.nn.positions.rotary.exact`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from aptlab.limits import Positive
from aptlab.nn.positions.rope.base import Frequencies, Rotation, compute_standard_frequencies


@dataclass(frozen=True, kw_only=True)
class Learnable(Rotation):
    """theta_i · exp(pace · a_i) with learned a, zero at first (the seeds' formula; RoPE's frequencies at the start).

    pace    an Adam step moves ln theta by pace times the learning rate; its gradient grows with position
    frozen  keep a at zero
    """

    rotary_class: ClassVar[str] = "aptlab.nn.positions.rotary:LearnedRotary"
    pace: Positive = 0.1
    frozen: bool = False

    def inv_freq(self, head_dim: int) -> Frequencies:
        return compute_standard_frequencies(self.base, head_dim)
