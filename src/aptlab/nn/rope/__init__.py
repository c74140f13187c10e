"""Position rules: one frozen dataclass each, without torch."""

from aptlab.nn.rope.base import Frequencies, Growth, Placement, Rope, Rotation, blend, clamp01, standard_frequencies
from aptlab.nn.rope.decay import XPos, XPosAngleDecay
from aptlab.nn.rope.fixed import Linear, NoRope, Partial, Proportional, Standard
from aptlab.nn.rope.grid import Axial2D, Axial3D, Kron2D, Kron3D, Mixed2D, MRope, MRopeInterleaved
from aptlab.nn.rope.irope import IRope
from aptlab.nn.rope.learned import Learnable
from aptlab.nn.rope.lengths import Scaled
from aptlab.nn.rope.longrope import LongRoPE, LongRoPE2, Searched, theoretical_critical
from aptlab.nn.rope.notices import notices
from aptlab.nn.rope.ntk import NTK, Dynamic, NTKLiu
from aptlab.nn.rope.parts import ByParts, Llama3, NTKByParts, YaRN, YaRNZones
from aptlab.nn.rope.schedule import PerLayer
from aptlab.nn.rope.variants import IRopeHeads, IRopeLayers, IRopePairs, IRopePhase, LinearHarmonic, YaRNUniform

__all__ = [
    "NTK",
    "Axial2D",
    "Axial3D",
    "ByParts",
    "Dynamic",
    "Frequencies",
    "Growth",
    "IRope",
    "IRopeHeads",
    "IRopeLayers",
    "IRopePairs",
    "IRopePhase",
    "Kron2D",
    "Kron3D",
    "Learnable",
    "Linear",
    "LinearHarmonic",
    "Llama3",
    "LongRoPE",
    "LongRoPE2",
    "MRope",
    "MRopeInterleaved",
    "Mixed2D",
    "NTKByParts",
    "NTKLiu",
    "NoRope",
    "Partial",
    "PerLayer",
    "Placement",
    "Proportional",
    "Rope",
    "Rotation",
    "Scaled",
    "Searched",
    "Standard",
    "XPos",
    "XPosAngleDecay",
    "YaRN",
    "YaRNUniform",
    "YaRNZones",
    "blend",
    "clamp01",
    "notices",
    "standard_frequencies",
    "theoretical_critical",
]
