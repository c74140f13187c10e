"""Position rules: one frozen dataclass each, without torch."""

from aptlab.nn.rope.base import Frequencies, Growth, Placement, Rope, Rotation, blend, clamp01, standard_frequencies
from aptlab.nn.rope.fixed import NTK, Linear, Llama3, NoRope, Standard, YaRN
from aptlab.nn.rope.irope import IRope
from aptlab.nn.rope.longrope import LongRoPE

__all__ = [
    "NTK",
    "Frequencies",
    "Growth",
    "IRope",
    "Linear",
    "Llama3",
    "LongRoPE",
    "NoRope",
    "Placement",
    "Rope",
    "Rotation",
    "Standard",
    "YaRN",
    "blend",
    "clamp01",
    "standard_frequencies",
]
