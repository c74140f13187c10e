"""Position rules: one frozen dataclass each, without torch."""

from aptlab.nn.positions.layer import Growth, LayerPositions
from aptlab.nn.positions.rope.base import (
    Frequencies,
    Rope,
    Rotation,
    blend_frequencies,
    clamp_to_unit,
    compute_standard_frequencies,
)
from aptlab.nn.positions.rope.by_parts import ByParts, Llama3, NTKByParts, YaRN, YaRNZones
from aptlab.nn.positions.rope.growing import GrowingQueries
from aptlab.nn.positions.rope.irope import IRope
from aptlab.nn.positions.rope.learnable import Learnable
from aptlab.nn.positions.rope.longrope import LongRoPE, LongRoPE2, SearchedRotation, compute_critical_pair
from aptlab.nn.positions.rope.multi_axis import Axial2D, Axial3D, Kron2D, Kron3D, Mixed2D, MRope, MRopeInterleaved
from aptlab.nn.positions.rope.notices import list_rope_warnings
from aptlab.nn.positions.rope.ntk import NTK, Dynamic, NTKLiu
from aptlab.nn.positions.rope.per_layer import PerLayer
from aptlab.nn.positions.rope.scaled import ScaledRotation
from aptlab.nn.positions.rope.seed_variants import (
    IRopeHeads,
    IRopeLayers,
    IRopePairs,
    IRopePhase,
    LinearHarmonic,
    YaRNUniform,
)
from aptlab.nn.positions.rope.standard import Linear, NoRope, Partial, Proportional, Standard
from aptlab.nn.positions.rope.xpos import XPos, XPosAngleDecay

__all__ = [
    "NTK",
    "Axial2D",
    "Axial3D",
    "ByParts",
    "Dynamic",
    "Frequencies",
    "GrowingQueries",
    "Growth",
    "IRope",
    "IRopeHeads",
    "IRopeLayers",
    "IRopePairs",
    "IRopePhase",
    "Kron2D",
    "Kron3D",
    "LayerPositions",
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
    "Proportional",
    "Rope",
    "Rotation",
    "ScaledRotation",
    "SearchedRotation",
    "Standard",
    "XPos",
    "XPosAngleDecay",
    "YaRN",
    "YaRNUniform",
    "YaRNZones",
    "blend_frequencies",
    "clamp_to_unit",
    "compute_critical_pair",
    "compute_standard_frequencies",
    "list_rope_warnings",
]
