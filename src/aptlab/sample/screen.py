"""Text of a model as it is shown to people: what a terminal would obey is spelled out. No torch."""

from __future__ import annotations

from typing import TextIO

from aptlab.shown import show_message
from aptlab.shown import show_text as escape_controls


def print_text(text: object, end: str = "\n") -> None:
    """Print a text, or a piece of one that is being written, at once and with its control characters spelled out."""
    print(escape_controls(str(text)), end=end, flush=True)


def dim_line(line: str, stream: TextIO) -> str:
    """A line of ours beside a model's text: dim on a terminal."""
    plain = show_message(line)
    return f"\x1b[2m{plain}\x1b[0m" if stream.isatty() else plain
