"""What tables of cosines and sines cost, by the longest position they must serve."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aptlab.nn.positions.rope import Rope
from aptlab.report.positions.board import (
    FONT,
    HEIGHT,
    draw_curves,
    format_token_axis,
    make_panel_figure,
    set_panel_titles,
)
from aptlab.report.positions.lines import Curve, Tables, join_names
from aptlab.report.positions.rotary_parts import AnalysisSettings, Array, RotaryPart
from aptlab.report.style import COLOURS, FAINT, INK

TITLE = "Memory of tables: {}"
STEP = 4096  # rows of each of the two levels, as in aptlab.nn.positions.rotary, which loads torch
STORED = "aptlab.nn.positions.rotary:RotaryEmbedding"  # the layer that keeps tables; others compute angles when asked
FLOAT = 4  # bytes
SHOWN = 10_000_000  # positions of the right panel


def compute_tables(parts: Sequence[RotaryPart], setting: AnalysisSettings) -> Tables:
    """Bytes by positions: of tables that hold every position, and of the two levels of each rule given.

    whole, half width  cos and sin in float32, D/2 numbers each
    whole, full width  the same twice side by side, as transformers builds them (D numbers each); as many bytes as
                       Meta's model.py, which keeps D/2 complex64 for twice the length
    two levels         4 tables of 4096 rows, D/2 float32 each, per set of frequencies: 16.7 million positions
    """
    positions = 2 ** np.arange(9, 25)
    half = positions * setting.head_dim * FLOAT
    found = [
        Curve(name="whole tables, full width (transformers, Meta)", columns=_columns(positions, 2 * half), number=1),
        Curve(name="whole tables, half width", columns=_columns(positions, half), number=5),
    ]
    rules_of_size: dict[int, list[str]] = {}
    for name in dict.fromkeys(part.name for part in parts):
        rules_of_size.setdefault(count_table_bytes([other for other in parts if other.name == name]), []).append(name)
    for number, (size, names) in enumerate(sorted(rules_of_size.items())):
        columns = _columns(positions, np.full(len(positions), size))
        found.append(
            Curve(name=f"two levels: {join_names(names)}", columns=columns, number=(0, 2, 3, 4, 6, 7)[number % 6])
        )
    return {"": found}


def count_table_bytes(rotary_parts: Sequence[RotaryPart]) -> int:
    """Bytes of the tables of one rule over all of its layers; 0 where angles are computed when asked for."""
    rules = dict.fromkeys(part.rule for part in rotary_parts)
    return sum(_of_layer(rule, rotary_parts[0].head_dim) for rule in rules)


def _of_layer(rule: Rope, head_dim: int) -> int:
    if rule.rotary_class != STORED:
        return 0
    return sum(4 * STEP * len(frequencies) * FLOAT for frequencies in rule.regimes(head_dim))


def format_bytes(value: float) -> str:
    """Bytes for a reader, in units of 1000.

    >>> [size_text(x) for x in (0, 512, 2_097_152, 10_240_000_000)]
    ['0', '512 B', '2.10 MB', '10.2 GB']
    """
    for size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= size:
            return f"{value / size:.3g} {unit}" if value / size >= 10 else f"{value / size:.2f} {unit}"
    return f"{value:.0f} B" if value else "0"


def draw_figure(
    tables: Tables, parts: Sequence[RotaryPart], setting: AnalysisSettings, *, title: str, path: Path
) -> Path:
    """Memory against positions left; right, what ten million positions take."""
    del parts
    lines = tables[""]
    figure = make_panel_figure(title, [(2, HEIGHT)])
    left, right = figure.panels[0]
    shown = [line for line in lines if line["bytes"].max() > 0]
    draw_curves(figure, left, shown, "positions", "bytes")
    _byte_axis(left, [value for line in shown for value in line["bytes"]])
    format_token_axis(left.xaxis, 400, 2.2e7)
    set_panel_titles(left, f"bytes of cosines and sines, head of {setting.head_dim} dims", "longest position (tokens)")
    _bars(right, lines)
    set_panel_titles(right, f"bytes at {SHOWN:,} positions, logarithmic")
    figure.shown.clear()  # the bars name the curves
    return figure.finish(path)


def _columns(positions: Array, size: Array) -> dict[str, Array]:
    return {"positions": positions, "bytes": size}


def _byte_axis(axes: Any, values: Sequence[float]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_yscale("log")
    axes.set_ylim(min(values) / 2, max(values) * 3)
    axes.yaxis.set_major_locator(LogLocator(base=10, numticks=12))
    axes.yaxis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{value / 1e6:g} MB" if value < 1e9 else f"{value / 1e9:g} GB")
    )
    axes.yaxis.set_minor_formatter(NullFormatter())


def _bars(axes: Any, lines: Sequence[Curve]) -> None:
    sizes = [float(np.interp(SHOWN, line["positions"], line["bytes"])) for line in lines]
    axes.barh(
        range(len(lines)), [max(size, 1) for size in sizes], color=[COLOURS[line.number] for line in lines], height=0.55
    )
    axes.set_xscale("log")
    axes.set_xlim(1e5, max(sizes) * 40)
    axes.set_ylim(len(lines) - 0.5, -0.65)
    axes.set_yticks([])
    axes.set_xticks([])
    axes.spines[["bottom"]].set_visible(False)
    axes.grid(visible=False)
    for number, (line, size) in enumerate(zip(lines, sizes)):
        axes.text(max(size, 1e5) * 1.25, number, format_bytes(size), va="center", color=INK, fontsize=9)
        axes.text(1.15e5, number - 0.37, line.name, va="center", color=FAINT, fontsize=FONT)
