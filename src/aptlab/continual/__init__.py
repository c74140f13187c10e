"""Learning one task after another: what is measured of it, and what is remembered meanwhile. No torch."""

from aptlab.continual.policies import Balanced, Herding, Policy, Reservoir, Ring
from aptlab.continual.rehearsal import BalancedShare, ConstantShare, NoReplay, Rehearsal, Replay, ShareSchedule

__all__ = [
    "Balanced",
    "BalancedShare",
    "ConstantShare",
    "Herding",
    "NoReplay",
    "Policy",
    "Rehearsal",
    "Replay",
    "Reservoir",
    "Ring",
    "ShareSchedule",
]
