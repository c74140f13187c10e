"""What the figures of positions share: panels, axes in tokens, marks for both lengths, one legend below."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aptlab.report.positions.lines import Curve
from aptlab.report.positions.rotary_parts import AnalysisSettings
from aptlab.report.style import COLOURS, DASHES, DPI, FAINT, INK, MARKERS, SIZE, save_figure, set_heading

LEGEND_LINE = 30  # pixels
TOP, AXIS, GAP = 105, 88, 130  # pixels above the panels, below them, and between two rows
HEIGHT = 520  # of one row of panels
FONT = 8


@dataclass
class PanelFigure:
    """A figure under construction; `panels[row][column]`. `shown` are the legend's entries in order."""

    figure: Any
    panels: list[list[Any]]
    shown: dict[str, Any] = field(default_factory=dict)

    def key(self, label: str, handle: Any) -> None:
        """An entry of the legend; a label that is there already keeps its first handle."""
        self.shown.setdefault(label, handle)

    def finish(self, path: Path) -> Path:
        """Draw the legend and write the file."""
        if self.shown:
            self.figure.legend(
                list(self.shown.values()),
                list(self.shown),
                loc="lower center",
                bbox_to_anchor=(0.52, 6 / (self.figure.get_figheight() * DPI)),
                ncols=count_legend_columns(list(self.shown)),
                frameon=False,
                fontsize=FONT,
                labelcolor=INK,
                handlelength=2.6,
                columnspacing=1.8,
                labelspacing=0.35,
            )
        return save_figure(self.figure, path)


def make_panel_figure(title: str, rows: Sequence[tuple[int, int]], *, labels: Sequence[str] = ()) -> PanelFigure:
    """A figure of rows, each with (panels, height in pixels), and room below for the legend that `labels` need."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    legend = 14 + LEGEND_LINE * math.ceil(len(labels) / count_legend_columns(labels)) if labels else 0
    total = TOP + sum(height for _, height in rows) + (len(rows) - 1) * GAP + AXIS + legend
    figure = Figure(figsize=(SIZE[0] / DPI, total / DPI), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    figure.text(0.065, 1 - 38 / total, title, fontsize=11, color=INK, weight="bold", va="center", parse_math=False)
    panels, top = [], TOP
    for count, height in rows:
        grid = figure.add_gridspec(
            1, count, left=0.065, right=0.98, top=1 - top / total, bottom=1 - (top + height) / total, wspace=0.2
        )
        panels.append([figure.add_subplot(grid[column]) for column in range(count)])
        top += height + GAP
    for row in panels:
        for axes in row:
            style_axes(axes)
    return PanelFigure(figure, panels)


def count_legend_columns(labels: Sequence[str]) -> int:
    """Entries in one row of the legend."""
    longest = max((len(label) for label in labels), default=1)
    return max(1, min(len(labels), 8, int(170 / (longest + 9))))


def style_axes(axes: Any) -> None:
    """Axes that leave the eye to the curves."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(labelsize=FONT, colors=INK, color=FAINT, length=3)
    axes.tick_params(which="minor", length=0)
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.xaxis.label.set(size=9, color=INK)
    axes.yaxis.label.set(size=9, color=INK)


def get_curve_style(line: Curve, *, marker: bool = False) -> dict[str, Any]:
    """The colour of the rule and the dashes of its part; with its marker where points are few."""
    return {
        "color": COLOURS[line.number % len(COLOURS)],
        "linestyle": DASHES[line.place % len(DASHES)],
        "linewidth": 1.5,
        "marker": MARKERS[line.number % len(MARKERS)] if marker else "",
        "markersize": 3.2,
    }


def draw_curves(
    board: PanelFigure,
    axes: Any,
    lines: Sequence[Curve],
    x: str,
    y: str,
    *,
    marker: bool = False,
    covered: bool = False,
) -> None:
    """Draw one column against another and name the curves in the legend.

    `covered`: rules often have the same values, so earlier ones are wider and show under later ones.
    """
    last = max((line.number for line in lines), default=0)
    for line in lines:
        style = get_curve_style(line, marker=marker)
        if covered:
            style["linewidth"] += compute_extra_width(line, last)
            style["markersize"] += 0.5 * (last - line.number)
        (drawn,) = axes.plot(line[x], line[y], label=line.label, **style)
        board.key(line.label, drawn)


def compute_extra_width(line: Curve, last: int) -> float:
    """Points by which a curve is wider than that of the last rule, so that it shows under it."""
    return min(0.9, 2.6 / (last + 1)) * (last - line.number)


def draw_bands(axes: Any, lines: Sequence[Curve], x: str = "distance") -> None:
    """The range from `low` to `high` of few curves; with many they would hide each other."""
    if len(lines) <= 2:
        for line in lines:
            axes.fill_between(
                line[x], line["low"], line["high"], color=get_curve_style(line)["color"], alpha=0.12, linewidth=0
            )


def format_token_axis(axis: Any, low: float, high: float) -> None:
    """A logarithmic axis in tokens with plain numbers: 1, 10, 100, 1,000, 1M."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    set_scale = axis.axes.set_xscale if axis.axis_name == "x" else axis.axes.set_yscale
    set_limits = axis.axes.set_xlim if axis.axis_name == "x" else axis.axes.set_ylim
    set_scale("log")
    set_limits(low, high)
    few = high / low < 300
    axis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0) if few else (1.0,), numticks=20))
    axis.set_major_formatter(FuncFormatter(lambda value, _: format_tokens(value)))
    axis.set_minor_formatter(NullFormatter())


def format_tokens(value: float) -> str:
    """A number of tokens for a reader.

    >>> [tokens(x) for x in (1, 4096, 65536.4, 10_000_000, 2.5e10)]
    ['1', '4,096', '65,536', '10M', '25G']
    """
    for size, unit in ((1e9, "G"), (1e6, "M")):
        if value >= size:
            return f"{value / size:.3g}{unit}" if value < 1e15 else f"{value:.0e}"
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"


def draw_length_marks(board: PanelFigure, axes: Any, setting: AnalysisSettings, *, across: bool = False) -> None:
    """Lines at the trained and the target length: upright, or `across` where tokens are on the y axis."""
    draw = axes.axhline if across else axes.axvline
    for label, value, dashes in (
        (f"trained {setting.original:,}", setting.original, (0, (5, 3))),
        (f"target {setting.length:,}", setting.length, (0, (1, 1.6))),
    ):
        board.key(label, draw(value, color="#6b6b6b", linewidth=1.0, linestyle=dashes, zorder=1))


def list_length_marks(setting: AnalysisSettings) -> list[str]:
    """The legend's entries of `marks`."""
    return [f"trained {setting.original:,}", f"target {setting.length:,}"]


def set_panel_titles(axes: Any, text: str, x: str = "") -> None:
    """Heading, which names what is on the y axis, and name of the x axis."""
    set_heading(axes, text)
    axes.set_xlabel(x, fontsize=9, color=INK)
