"""Count the characters of a text.

aptlab count text=hello times=2
"""

from __future__ import annotations

from dataclasses import dataclass

from aptlab.config import check, compose, fill_request
from aptlab.limits import PositiveInt


@dataclass(frozen=True, kw_only=True)
class CountRequest:
    """What `aptlab count` is asked for: a text, and how often it counts."""

    text: str
    times: PositiveInt = 1


def run(args: list[str]) -> int:
    """Print the number."""
    config = compose("count", args)
    check(config)
    request = fill_request(CountRequest, config)
    print(f"{len(request.text) * request.times} characters")
    return 0
