r"""Text from elsewhere, escaped for the place where it is shown: one function a place. No torch.

Names of runs, values of configurations, special tokens and generated text come out of files that somebody else may
have made. A terminal obeys control characters (ECMA-48), Markdown and rich obey markup, a spreadsheet computes a cell
that begins with `=`, and matplotlib sets what stands between two `$` as a formula. None of them shall.

terminal   show_text (lines and tabs stay), show_message (a message of ours), show_line (all on one line)
table.md   show_markdown      table.csv  show_csv_cell      a figure  show_label
stdout     print_shown, and print_drawn for a table that may have colours; a test finds every bare `print`
"""

from __future__ import annotations

import re
import sys
from typing import Any, TextIO

CONTROLS = r"\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 without tab and newline, DEL, C1
LONELY = r"\ud800-\udfff"  # halves of a character, as a file name of other bytes has them: no stream takes them
UNSEEN = (
    r"\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff"  # new lines, and what turns the order of a line round
)
_IN_TEXT = re.compile(f"[{CONTROLS}{LONELY}]")
_IN_MESSAGE = re.compile(f"[{CONTROLS}{LONELY}{UNSEEN}]")
_IN_LINE = re.compile(f"[\\t\\n{CONTROLS}{LONELY}{UNSEEN}]")
_MARKUP = re.compile(r"[\\`*\[\]|~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|^[-+#](?!\d)")
_FORMULA = "=+-@\t\r\n＝＋－＠"  # OWASP, "CSV Injection": the first characters that a spreadsheet computes
_COLOURED = re.compile(rf"\x1b\[[0-9;]*m|[{CONTROLS}{LONELY}{UNSEEN}]")
_NAMED = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def show_text(text: object) -> str:
    r"""A text for a terminal: control characters as `\xNN`; newline, tab and every letter of any script stay.

    No character is made of several, so pieces of a text that is being written may be shown one by one.

    >>> print(show_text("red \x1b[31m, bell \x07"))
    red \x1b[31m, bell \x07
    """
    return _IN_TEXT.sub(_spell, str(text))


def show_message(text: object) -> str:
    """A message of ours for a terminal or a log: its own lines stay, and nothing turns their order round."""
    return _IN_MESSAGE.sub(_spell, str(text))


def show_line(text: object) -> str:
    r"""A name or a value on one line; newlines and tabs as `\n` and `\t`.

    >>> print(show_line("two\nlines"))
    two\nlines
    """
    return _IN_LINE.sub(lambda found: _NAMED.get(found[0]) or _spell(found), str(text))


def show_markdown(text: object) -> str:
    r"""A cell or a line of a page in Markdown, as GitHub reads it: no markup, link, formula or HTML.

    >>> print(show_markdown("a|b <i> [x](y) left_spin _z_"))
    a\|b &lt;i&gt; \[x\](y) left_spin \_z\_
    """
    plain = _MARKUP.sub(lambda found: f"\\{found[0]}", show_line(text))
    plain = re.sub(r"&(?=[#\w]+;)", "&amp;", plain).replace("<", "&lt;").replace(">", "&gt;")
    return plain.replace("://", "&#58;//")


def show_csv_cell(value: Any) -> Any:
    """A cell of a CSV file: numbers as they are, a text that a spreadsheet would compute with a `'` in front.

    >>> [show_csv_cell(x) for x in (-1.5, "-1.5", "=1+1", "-x", "x")]
    [-1.5, '-1.5', "'=1+1", "'-x", 'x']
    """
    if not isinstance(value, str):
        return value
    plain = show_text(value)
    return f"'{plain}" if value.lstrip(" ")[:1] in tuple(_FORMULA) and not _is_number(plain) else plain


def show_label(text: object) -> str:
    """A title, tick or legend of a figure, for matplotlib with mathtext: a `$` is a `$`."""
    return show_line(text).replace("$", r"\$")


def print_shown(*lines: object, end: str = "\n", file: TextIO | None = None, flush: bool = False) -> None:
    """Print lines for people, with what a terminal would obey spelled out: the `print` of this project."""
    print(*(show_message(line) for line in lines), sep="\n", end=end, file=file or sys.stdout, flush=flush)


def print_drawn(text: object, *, flush: bool = False) -> None:
    """Print a table, whose cells were escaped where it was drawn; its colours stay, and nothing else is obeyed."""
    plain = _COLOURED.sub(lambda found: found[0] if len(found[0]) > 1 else _spell(found), str(text))
    print(plain, flush=flush)


def count_nouns(number: int, noun: str) -> str:
    """A number and what it counts, in the plural where it is not one.

    >>> [count_nouns(number, "file") for number in (0, 1, 1200)]
    ['0 files', '1 file', '1,200 files']
    """
    ending = "" if number == 1 else "es" if noun.endswith(("ch", "s", "x")) else "s"
    return f"{number:,} {noun}{ending}"


def _is_number(text: str) -> bool:
    """Whether a text is a number as a CSV file has it."""
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text and text == text.strip()


def _spell(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
