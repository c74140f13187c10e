"""Layers that mix channels of each token."""

from aptlab.nn.ffn.base import FeedForward
from aptlab.nn.ffn.dense import GELU, ClampedSwiGLU, GeGLU, SwiGLU
from aptlab.nn.ffn.matformer import MatFormer

__all__ = ["GELU", "ClampedSwiGLU", "FeedForward", "GeGLU", "MatFormer", "SwiGLU"]
