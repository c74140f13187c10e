"""Layers that mix channels of each token."""

from aptlab.nn.ffn.base import FeedForward
from aptlab.nn.ffn.dense import GELU, ClampedSwiGLU, GeGLU, SwiGLU

__all__ = ["GELU", "ClampedSwiGLU", "FeedForward", "GeGLU", "SwiGLU"]
