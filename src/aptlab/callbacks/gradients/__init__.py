"""What is done to gradients between the backward pass and the optimizer step."""

from aptlab.callbacks.gradients.adagc import AdaGC
from aptlab.callbacks.gradients.agc import AGC
from aptlab.callbacks.gradients.base import GradientCallback
from aptlab.callbacks.gradients.low_rank import LowRankGradients
from aptlab.callbacks.gradients.zclip import ZClip

__all__ = ["AGC", "AdaGC", "GradientCallback", "LowRankGradients", "ZClip"]
