"""Text of a model as it is shown to people: what a terminal would obey is spelled out. No torch."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TextIO

from aptlab.sample.texts import GeneratedText
from aptlab.shown import show_message
from aptlab.shown import show_text as escape_controls


def print_text(text: object, end: str = "\n") -> None:
    """Print a text, or a piece of one that is being written, at once and with its control characters spelled out."""
    print(escape_controls(str(text)), end=end, flush=True)


def dim_line(line: str, stream: TextIO) -> str:
    """A line of ours beside a model's text: dim on a terminal."""
    plain = show_message(line)
    return f"\x1b[2m{plain}\x1b[0m" if stream.isatty() else plain


def print_status(line: str) -> None:
    """A line of ours on stderr, where a text on stdout is not disturbed."""
    print(dim_line(line, sys.stderr), file=sys.stderr, flush=True)


def format_summary(texts: Sequence[GeneratedText], seed: int, seconds: float) -> str:
    """Tokens, speed and seeds of what was written."""
    count = sum(len(text.tokens) for text in texts)
    last = max((text.seed for text in texts), default=seed)
    seeds = f"{seed}" + (f" to {last}" if last > seed else "")
    end = ", interrupted" if any(text.reason == "interrupted" for text in texts) else ""
    return f"{count} tokens, {count / max(seconds, 1e-9):,.0f} tokens/s, seed {seeds}{end}"
