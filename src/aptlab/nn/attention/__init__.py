"""Layers that mix tokens, and what they share: kernels, masks, windows, caches."""

from aptlab.nn.attention.autopoietic import AutopoieticAttention
from aptlab.nn.attention.base import Attention, HeadAttention
from aptlab.nn.attention.cross import CrossAttention
from aptlab.nn.attention.full import FullAttention
from aptlab.nn.attention.linear import LinearAttention
from aptlab.nn.attention.logits import LogitRule
from aptlab.nn.attention.qk_norm import QKNorm
from aptlab.nn.attention.spec import AttentionSpec, Heads

__all__ = [
    "Attention",
    "AttentionSpec",
    "AutopoieticAttention",
    "CrossAttention",
    "FullAttention",
    "HeadAttention",
    "Heads",
    "LinearAttention",
    "LogitRule",
    "QKNorm",
]
