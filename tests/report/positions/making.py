"""Small settings and parts of rules for the tests of analyses."""

from __future__ import annotations

from aptlab.nn.positions.rope import Rope
from aptlab.report.positions import AnalysisSettings, RotaryPart, split_rotary_parts

SMALL = AnalysisSettings(length=1024, original=128, head_dim=16, bases=(100.0, 10_000.0))


def one(rule: Rope, setting: AnalysisSettings = SMALL) -> RotaryPart:
    """The only part of a rule."""
    (part,) = split_rotary_parts("rule", rule, setting)
    return part
