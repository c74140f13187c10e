"""Tables of numbers as colours: what a model finds, by depth or task, and by length."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aptlab.report.style import DPI, FAINT, INK, SIZE, save_figure, set_heading
from aptlab.shown import show_label

MAP = "cividis"  # even in lightness, and the same to readers with and without red-green blindness (Nuñez et al. 2018)
CELL = 42  # pixels of a row, at least
FONT = 8
WIDEST = 16  # columns whose numbers can be read


@dataclass(frozen=True, kw_only=True)
class HeatPanel:
    """One panel: `values[row][column]`, None where nothing was measured.

    low, high  ends of the colour scale; None = the smallest and the largest value
    digits     after the point, in the cells
    falling    whether small values are the good ones, which are bright
    apart      rows at the end that a line sets apart, such as means
    """

    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    values: Sequence[Sequence[float | None]]
    low: float | None = None
    high: float | None = None
    digits: int = 0
    falling: bool = False
    apart: int = 0


def draw_heatmaps(panels: Sequence[HeatPanel], *, title: str, path: Path, across: str, down: str = "") -> Path:
    """Write the panels side by side, with their numbers in the cells; raises AptlabError if the place is no good.

    `across` and `down` name the columns and the rows. All panels have the same rows and columns.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    height = max(SIZE[1], 210 + CELL * max(len(panel.rows) for panel in panels))
    figure = Figure(figsize=(SIZE[0] / DPI, height / DPI), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    room = 0.03 + 0.0062 * max(len(name) for panel in panels for name in panel.rows) + 0.02 * bool(down)
    grid = figure.add_gridspec(
        1, len(panels), left=room, right=0.955, top=1 - 105 / height, bottom=75 / height, wspace=0.1
    )
    figure.text(0.015, 1 - 38 / height, title, fontsize=11, color=INK, weight="bold", va="center", parse_math=False)
    for number, panel in enumerate(panels):
        axes = figure.add_subplot(grid[number])
        draw_heat_panel(axes, panel, first=number == 0)
        axes.set_xlabel(across, fontsize=9, color=INK)
        if number == 0:
            axes.set_ylabel(down, fontsize=9, color=INK)
    return save_figure(figure, path)


def draw_heat_panel(axes: Any, panel: HeatPanel, *, first: bool) -> None:
    """One panel with its colour bar; only the first names its rows."""
    from matplotlib import colormaps
    from matplotlib.colors import Normalize

    set_heading(axes, panel.title)
    known = [value for row in panel.values for value in row if value is not None and math.isfinite(value)]
    low = min(known, default=0.0) if panel.low is None else panel.low
    high = max(known, default=1.0) if panel.high is None else panel.high
    scale = Normalize(low, high if high > low else low + 1)
    colours = colormaps[MAP + "_r" * panel.falling].with_extremes(bad="#e6e6e6")
    table = [[math.nan if value is None else value for value in row] for row in panel.values]
    image = axes.imshow(table, cmap=colours, norm=scale, aspect="auto", interpolation="nearest")
    axes.set_xticks(range(len(panel.columns)), [*map(show_label, panel.columns)], fontsize=FONT, color=INK)
    axes.set_yticks(range(len(panel.rows)), [*map(show_label, panel.rows)] if first else [], fontsize=FONT, color=INK)
    if len(panel.columns) > WIDEST:
        axes.set_xticks(
            *zip(*list(enumerate(map(show_label, panel.columns)))[:: math.ceil(len(panel.columns) / WIDEST)])
        )
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    if panel.apart:
        axes.axhline(len(panel.rows) - panel.apart - 0.5, color="white", linewidth=4)
    if len(panel.columns) <= WIDEST:
        annotate_cells(axes, panel, colours, scale)
    bar = axes.figure.colorbar(image, ax=axes, fraction=0.03, pad=0.015)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=7, colors=FAINT, length=0)


def annotate_cells(axes: Any, panel: HeatPanel, colours: Any, scale: Any) -> None:
    """The number in each cell, dark on bright and bright on dark."""
    for row, values in enumerate(panel.values):
        for column, value in enumerate(values):
            if value is None:
                continue
            red, green, blue, _ = colours(scale(value))
            bright = 0.2126 * red + 0.7152 * green + 0.0722 * blue
            axes.text(
                column,
                row,
                f"{value:.{panel.digits}f}",
                ha="center",
                va="center",
                fontsize=FONT if len(panel.columns) <= 10 else FONT - 2,
                color=INK if bright > 0.45 else "white",
            )
