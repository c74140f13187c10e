"""The tables of docs/other-runtimes.md, from the cells that benchmarks/runtimes.py measured."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aptlab.models.hf.readers import READERS, ROWS
from common import machine, table
from tables import replace_block

PAGE = Path(__file__).resolve().parents[1] / "docs" / "other-runtimes.md"
Cells = Mapping[str, Mapping[str, Any]]


def write_page(cells: Cells, packages: Mapping[str, tuple[str, ...]]) -> Path:
    """Put the tables, the reasons and the versions between their markers."""
    text = PAGE.read_text(encoding="utf-8")
    names = [reader.name for reader in READERS]
    blocks = {
        "default": format_cells(cells, {name: "default" for name in names if name != "onnx"}),
        "own": format_cells(cells, {reader.name: reader.name for reader in READERS if reader.own}),
        "reasons": format_reasons(cells),
        "versions": format_versions(packages),
    }
    for name, block in blocks.items():
        text = replace_block(text, name, block)
    PAGE.write_text(text, encoding="utf-8")
    return PAGE


def format_cells(cells: Cells, forms: Mapping[str, str]) -> str:
    """Rows are rules, columns readers; each cell has the outcome, and how far logits are off in the worse length."""
    rows = []
    for row in ROWS:
        line = [row]
        for name, form in forms.items():
            cell = cells.get(f"{name}|{form}|{row}")
            line.append("not run" if cell is None else format_cell(cell))
        rows.append(line)
    return table(["rule", *forms], rows)


def format_cell(cell: Mapping[str, Any]) -> str:
    """The outcome in one word, the difference by length, and what was computed instead."""
    if not cell["off"]:
        return cell["outcome"]
    off = " / ".join(f"{gap:.1g}" if gap < 0.01 else f"{gap:.2g}" for gap in cell["off"].values())
    note = f" ({cell['note']})" if cell["note"] else ""
    return f"{cell['outcome']} {off}{note}"


def format_reasons(cells: Cells) -> str:
    """Every refusal, and what could not be run, in the words of the reader; rules with the same words together."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for row in ROWS:
        for key, cell in cells.items():
            name, form, of = key.split("|")
            if of == row and cell["outcome"] in ("refused", "not run"):
                words = cell["note"].replace("|", "\\|")
                found.setdefault((name, form, words), []).append(row)
    lines = []
    for (name, form, words), rows in sorted(found.items()):
        words = words or "no word"
        title = name if form == "default" else f"{name}, for={form}"
        lines.append(f"- {title}: {', '.join(rows)}: `{words[:160].replace('`', chr(39))}`")
    return "\n".join(lines) or "None."


def format_versions(packages: Mapping[str, tuple[str, ...]]) -> str:
    lines = [f"- {name}: {', '.join(each)}" for name, each in packages.items()]
    return "\n".join([*lines, f"- machine: {machine()}", "- command: `python benchmarks/runtimes.py`"])
