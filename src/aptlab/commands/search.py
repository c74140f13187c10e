"""`aptlab search`: factors of LongRoPE or LongRoPE2 for a longer context, as an option that `rope=` can use at once."""

from __future__ import annotations

from aptlab.commands.searching.request import read
from aptlab.device.threads import calm


def run(args: list[str]) -> int:
    """Check the request without torch, then search, or go on with a search that was stopped; returns 0."""
    request = read(args)
    calm()
    from aptlab.commands.searching.session import start

    start(request)
    return 0
