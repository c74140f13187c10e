"""Position rules: one frozen dataclass each, without torch."""

from aptlab.nn.rope.base import Frequencies, Growth, Placement, Rope, Rotation, blend, clamp01, standard_frequencies
from aptlab.nn.rope.fixed import NTK, Linear, Llama3, NoRope, Standard, YaRN

__all__ = [
    "NTK",
    "Frequencies",
    "Growth",
    "Linear",
    "Llama3",
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
