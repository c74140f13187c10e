"""Plain columns for a terminal or a pipe."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Sequence


def format_columns(rows: Sequence[tuple[str, ...]], indent: str = "") -> str:
    """Rows in aligned columns; on a terminal the second column is wrapped to its width."""
    if not rows:
        return ""
    rows = [tuple(row) for row in rows]
    used = [index for index in range(len(rows[0])) if any(row[index] for row in rows)] or [0]
    kept = [[row[index] for index in used] for row in rows]
    first = max(len(row[0]) for row in kept)
    room = shutil.get_terminal_size().columns - first - 2 - len(indent) if sys.stdout.isatty() else 10_000
    lines = []
    for row in kept:
        text = textwrap.wrap(row[1], max(room, 30)) if len(row) > 1 else []
        tail = f"  ({row[2]})" if len(row) > 2 and row[2] else ""
        head = f"{indent}{row[0]:<{first}}  {text[0] if text else ''}"
        rest = [f"{indent}{'':<{first}}  {line}" for line in text[1:]]
        whole = [head, *rest]
        whole[-1] += tail
        lines += [line.rstrip() for line in whole]
    return "\n".join(lines)
