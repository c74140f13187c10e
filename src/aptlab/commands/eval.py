"""`aptlab eval`: measure a trained model at several lengths, with its own or another position rule."""

from __future__ import annotations

from aptlab.commands.evaluating.request import read


def run(args: list[str]) -> int:
    """Check the request without torch, then load, measure, print and write; returns 0."""
    request = read(args)
    from aptlab.commands.evaluating.session import measure

    measure(request)
    return 0
