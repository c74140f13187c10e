"""Modules that turn queries and keys by a rule."""

from __future__ import annotations

import importlib

from torch import nn

from aptlab.nn.rope import Rope
from aptlab.nn.rotary.angles import Angles
from aptlab.nn.rotary.exact import DynamicRotary, LearnedRotary, MixedRotary
from aptlab.nn.rotary.tables import LONGEST, STEP, RotaryEmbedding

__all__ = [
    "LONGEST",
    "STEP",
    "Angles",
    "DynamicRotary",
    "LearnedRotary",
    "MixedRotary",
    "RotaryEmbedding",
    "rotary",
]


def rotary(rule: Rope, *, head_dim: int, heads: int = 1, kv_heads: int = 1) -> nn.Module:
    """The module that the rule names as its `layer`."""
    module, _, name = rule.layer.partition(":")
    return getattr(importlib.import_module(module), name)(rule, head_dim=head_dim, heads=heads, kv_heads=kv_heads)
