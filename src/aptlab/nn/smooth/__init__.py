"""How a branch joins the residual stream: as it is, scaled, normalised, or shrunk where it is large or turns sharply.

Every layer here is called `smooth(u, delta, context)` and returns the new stream; what the same site of the next block
gets (`carry`) and statistics go through the context.
"""

from aptlab.nn.smooth.base import SiteInfo, Smooth
from aptlab.nn.smooth.branch_scale import BranchScale, ScaledBranch
from aptlab.nn.smooth.carry import Carry, Trace
from aptlab.nn.smooth.deepnorm import DeepNorm
from aptlab.nn.smooth.depth_decay import DepthDecay
from aptlab.nn.smooth.layer_scale import LayerScale
from aptlab.nn.smooth.left_spin import LeftSpin
from aptlab.nn.smooth.memory import MemorySmooth
from aptlab.nn.smooth.plain import Plain
from aptlab.nn.smooth.post_norm import PostNorm
from aptlab.nn.smooth.residual_scale import ResidualScale
from aptlab.nn.smooth.rezero import ReZero
from aptlab.nn.smooth.rule import Gate, SketchRule, SpinRule, Strength
from aptlab.nn.smooth.seed import LeftSpinSeed
from aptlab.nn.smooth.sketch import SketchTeacher, SpikeSketch

__all__ = [
    "BranchScale",
    "Carry",
    "DeepNorm",
    "DepthDecay",
    "Gate",
    "LayerScale",
    "LeftSpin",
    "LeftSpinSeed",
    "MemorySmooth",
    "Plain",
    "PostNorm",
    "ReZero",
    "ResidualScale",
    "ScaledBranch",
    "SiteInfo",
    "SketchRule",
    "SketchTeacher",
    "Smooth",
    "SpikeSketch",
    "SpinRule",
    "Strength",
    "Trace",
]
