"""Position rules: one frozen dataclass each, without torch. A rule's file is loaded when it is first asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aptlab.lazy import load_on_demand
from aptlab.nn.positions.layer import Growth, LayerPositions
from aptlab.nn.positions.rope.base import (
    Frequencies,
    Rope,
    Rotation,
    blend_frequencies,
    clamp_to_unit,
    compute_standard_frequencies,
)

if TYPE_CHECKING:
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

_FILES = {  # a file of this package, and what is defined in it
    "by_parts": "ByParts Llama3 NTKByParts YaRN YaRNZones",
    "growing": "GrowingQueries",
    "irope": "IRope",
    "learnable": "Learnable",
    "longrope": "LongRoPE LongRoPE2 SearchedRotation compute_critical_pair",
    "multi_axis": "Axial2D Axial3D Kron2D Kron3D MRope MRopeInterleaved Mixed2D",
    "notices": "list_rope_warnings",
    "ntk": "Dynamic NTK NTKLiu",
    "per_layer": "PerLayer",
    "scaled": "ScaledRotation",
    "seed_variants": "IRopeHeads IRopeLayers IRopePairs IRopePhase LinearHarmonic YaRNUniform",
    "standard": "Linear NoRope Partial Proportional Standard",
    "xpos": "XPos XPosAngleDecay",
}
_HOMES = {name: file for file, names in _FILES.items() for name in names.split()}
__getattr__ = load_on_demand(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
