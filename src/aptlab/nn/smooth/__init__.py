"""How a branch joins the residual stream: as it is, scaled, normalised, or shrunk where it is large or turns sharply.

Every layer here is called `smooth(u, delta, context)` and returns the new stream; what the same site of the next block
gets (`carry`) and statistics go through the context.
"""

from aptlab.nn.smooth.base import Smooth
from aptlab.nn.smooth.carry import Carry, Trace
from aptlab.nn.smooth.left_spin import LeftSpin
from aptlab.nn.smooth.memory import MemorySmooth
from aptlab.nn.smooth.plain import Plain
from aptlab.nn.smooth.post_norm import PostNorm
from aptlab.nn.smooth.rule import Gate, SketchRule, SpinRule, Strength
from aptlab.nn.smooth.scaled import ScaledResidual
from aptlab.nn.smooth.seed import LeftSpinSeed
from aptlab.nn.smooth.sketch import SketchTeacher, SpikeSketch

__all__ = [
    "Carry",
    "Gate",
    "LeftSpin",
    "LeftSpinSeed",
    "MemorySmooth",
    "Plain",
    "PostNorm",
    "ScaledResidual",
    "SketchRule",
    "SketchTeacher",
    "Smooth",
    "SpikeSketch",
    "SpinRule",
    "Strength",
    "Trace",
]
