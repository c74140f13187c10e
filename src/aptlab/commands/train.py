"""`aptlab train`: plan without torch, then train."""

from __future__ import annotations

from aptlab.device.threads import limit_idle_spin
from aptlab.train.plan import plan_training


def run(args: list[str]) -> int:
    """Check the whole request first; nothing is written and torch is not imported until it holds."""
    request = plan_training(args)
    limit_idle_spin()
    from aptlab.train.run import run_training

    return run_training(request)
