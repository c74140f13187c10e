"""A line of the table of faults."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """How often one fault was injected and how often the promise held.

    fault      its number and name, as `F5 checkpoint, bit flipped`
    injected   how, in words
    tried      times that it was injected
    held       times that nothing acknowledged was lost, nothing damaged accepted, and the message was one line
    note       what else was seen; the first failures, if there were any
    """

    fault: str
    injected: str
    tried: int
    held: int
    note: str = ""
