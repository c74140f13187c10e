"""`aptlab search`: factors of LongRoPE or LongRoPE2 for a longer context, as an option that `rope=` can use at once."""

from __future__ import annotations

from aptlab.device.threads import limit_idle_spin
from aptlab.search.request import SearchRequest, read_search_request


def run(args: list[str]) -> int:
    """Check the request without torch, then search, or go on with a search that was stopped; returns 0."""
    request: SearchRequest = read_search_request(args)
    limit_idle_spin()
    from aptlab.search.runner import start_search

    start_search(request)
    return 0
