"""All tables as text: aligned columns for files and pipes, coloured ones for a terminal, Markdown for a page."""

from __future__ import annotations

import math
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from aptlab.shown import show_line, show_markdown


def format_length_table(lengths: Sequence[Mapping[str, Any]], context: int, *, terminal: bool | None = None) -> str:
    """Loss at multiples of the trained context: one row per entry of result.json's `lengths`.

    Loss in nats per token, bpb in bits per byte; `vs 1x` is the perplexity divided by that at the trained
    context, so 1.00 means that longer text costs nothing. `terminal` None asks stdout.
    """
    if not lengths:
        return f"lengths: not measured (trained at {context:,} tokens)"
    rows = sorted(lengths, key=lambda row: row["length"])
    base = next((row.get("ppl") for row in rows if row["length"] == context), None)
    head = ["length", "tokens", "loss", "ppl", "bpb", "vs 1x"]
    body = [
        [
            _multiple(row, context),
            f"{row['length']:,}",
            format_number(row.get("loss"), 4),
            format_number(row.get("ppl"), 3),
            format_number(row.get("bpb"), 4),
            format_number(_ratio(row.get("ppl"), base), 2),
        ]
        for row in rows
    ]
    return render_table(head, body, title=f"loss by length (trained at {context:,} tokens)", terminal=terminal)


def format_number(value: float | None, digits: int = 4) -> str:
    """A number for a table; `-` if it is not known, `inf` or `nan` if it is not finite.

    >>> [format_number(x, 2) for x in (None, 1.234, 123456.0, float("nan"))]
    ['-', '1.23', '123,456', 'nan']
    """
    if value is None:
        return "-"
    if not math.isfinite(value):
        return str(value)
    if abs(value) >= 1e9:
        return f"{value:.2e}"
    return f"{value:,.{digits if abs(value) < 1000 else 0}f}"


def render_table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    left: int = 1,
    title: str = "",
    terminal: bool | None = None,
    bold: Sequence[int] = (),
) -> str:
    """A table as text. The first `left` columns are flush left, the others right; rows in `bold` stand out.

    In a terminal it is drawn by rich; everywhere else it is plain text with aligned columns.
    """
    if terminal is None:
        terminal = sys.stdout.isatty()
    head, rows, title = [*map(show_line, head)], [[*map(show_line, row)] for row in rows], show_line(title)
    if terminal:
        return _rich(head, rows, left, title, bold)
    widths = [max(len(line[i]) for line in [head, *rows]) for i in range(len(head))]
    lines = [title] if title else []
    lines.append(_line(head, widths, left))
    lines.append("  ".join("-" * width for width in widths))
    lines += [_line(row, widths, left) for row in rows]
    return "\n".join(lines)


def format_columns(rows: Sequence[tuple[str, ...]], indent: str = "") -> str:
    """Two plain columns without a head, as in help; a third cell follows in brackets.

    On a terminal the second column is wrapped to its width; columns that are empty in all rows are left out.
    """
    if not rows:
        return ""
    used = [index for index in range(len(rows[0])) if any(row[index] for row in rows)] or [0]
    cells = [[show_line(row[index]) for index in used] for row in rows]
    first = max(len(row[0]) for row in cells)
    room = shutil.get_terminal_size().columns - first - 2 - len(indent) if sys.stdout.isatty() else 10_000
    lines = []
    for row in cells:
        text = textwrap.wrap(row[1], max(room, 30)) if len(row) > 1 else []
        block = [f"{indent}{row[0]:<{first}}  {text[0] if text else ''}"]
        block += [f"{indent}{'':<{first}}  {line}" for line in text[1:]]
        block[-1] += f"  ({row[2]})" if len(row) > 2 and row[2] else ""
        lines += [line.rstrip() for line in block]
    return "\n".join(lines)


def render_markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """A GitHub table; markup inside a cell is escaped."""
    cells = [[*map(show_markdown, line)] for line in (head, *rows)]
    lines = [cells[0], [":--" if i < left else "--:" for i in range(len(head))], *cells[1:]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _line(cells: Sequence[str], widths: Sequence[int], left: int) -> str:
    padded = [cell.ljust(w) if i < left else cell.rjust(w) for i, (cell, w) in enumerate(zip(cells, widths))]
    return "  ".join(padded).rstrip()


def _rich(head: Sequence[str], rows: Sequence[Sequence[str]], left: int, title: str, bold: Sequence[int]) -> str:
    from io import StringIO

    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, title=Text(title) if title else None, title_justify="left", pad_edge=False)
    for i, name in enumerate(head):
        table.add_column(Text(name), justify="left" if i < left else "right", no_wrap=i >= left, overflow="fold")
    for i, row in enumerate(rows):
        table.add_row(*(Text(cell) for cell in row), style="bold green" if i in bold else None)
    out = StringIO()
    width = max(shutil.get_terminal_size().columns, 40)
    Console(file=out, force_terminal=True, width=width, highlight=False).print(table)
    return out.getvalue().rstrip("\n")


def _multiple(row: Mapping[str, Any], context: int) -> str:
    multiple = row.get("multiple") or row["length"] / max(context, 1)
    return f"{multiple:g}x"


def _ratio(value: float | None, base: float | None) -> float | None:
    return None if value is None or not base else value / base
