"""Modules that rotate queries and keys by a rule."""

from __future__ import annotations

import importlib

from aptlab.nn.positions.rope import Rope
from aptlab.nn.positions.rotary.angles import Angles
from aptlab.nn.positions.rotary.base import Rotary
from aptlab.nn.positions.rotary.exact import DynamicRotary, LearnedRotary, MixedRotary
from aptlab.nn.positions.rotary.tables import LONGEST, STEP, RotaryEmbedding

__all__ = [
    "LONGEST",
    "STEP",
    "Angles",
    "DynamicRotary",
    "LearnedRotary",
    "MixedRotary",
    "Rotary",
    "RotaryEmbedding",
    "build_rotary",
]


def build_rotary(rule: Rope, *, head_dim: int, heads: int = 1, kv_heads: int = 1) -> Rotary:
    """The module that the rule names as its `rotary_class`."""
    module, _, name = rule.rotary_class.partition(":")
    return getattr(importlib.import_module(module), name)(rule, head_dim=head_dim, heads=heads, kv_heads=kv_heads)
