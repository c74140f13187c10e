"""Text of a model as it is shown to people: what a terminal would obey is spelled out. No torch."""

from __future__ import annotations

import re
from typing import TextIO

CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # C0 without tab and newline, DEL, C1 (ECMA-48)


def escape_controls(text: str) -> str:
    r"""The text with its control characters as `\xNN`; newline and tab stay.

    ESC, BEL or a backspace out of a model would colour, ring or overwrite what the terminal shows. No character is
    made of several, so pieces of a text that is being written may be escaped one by one.

    >>> print(escape_controls("red \x1b[31m, bell \x07"))
    red \x1b[31m, bell \x07
    """
    return CONTROLS.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def print_text(text: object, end: str = "\n") -> None:
    """Print a text, or a piece of one that is being written, at once and with its control characters spelled out."""
    print(escape_controls(str(text)), end=end, flush=True)


def dim_line(line: str, stream: TextIO) -> str:
    """A line of ours beside a model's text: dim on a terminal."""
    return f"\x1b[2m{line}\x1b[0m" if stream.isatty() else line
