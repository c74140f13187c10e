"""`aptlab train`: plan without torch, then train."""

from __future__ import annotations

from aptlab.training.inside import train_inside_process


def run(args: list[str]) -> int:
    """Check the whole request first; nothing is written and torch is not imported until it holds. Returns 0."""
    train_inside_process(args)
    return 0
