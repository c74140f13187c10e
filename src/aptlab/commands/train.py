"""`aptlab train`: plan without torch, then train."""

from __future__ import annotations

from aptlab.commands.training.plan import plan
from aptlab.device.threads import calm


def run(args: list[str]) -> int:
    """Check the whole request first; nothing is written and torch is not imported until it holds."""
    request = plan(args)
    calm()
    from aptlab.commands.training.session import train

    return train(request)
