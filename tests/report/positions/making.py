"""Small settings and parts of rules for the tests of analyses."""

from __future__ import annotations

from aptlab.nn.rope import Rope
from aptlab.report.positions import Setting, Turning, turnings

SMALL = Setting(length=1024, original=128, head_dim=16, bases=(100.0, 10_000.0))


def one(rule: Rope, setting: Setting = SMALL) -> Turning:
    """The only part of a rule."""
    (turning,) = turnings("rule", rule, setting)
    return turning
