"""How every figure looks: size, colours that colour-blind readers can tell apart, quiet axes."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

from aptlab.errors import AptlabError
from aptlab.runs.files import open_file
from aptlab.shown import show_line

SIZE = (1600, 700)  # pixels
DPI = 150
INK = "#222222"
FAINT = "#8a8a8a"
# Okabe and Ito (2008), darker yellow, so that every colour can be read on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#555555", "#8F7A00")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES = ("-", "--", ":", "-.")


def get_indexed_style(index: int) -> dict[str, Any]:
    """Colour, marker and line style of the curve with this number; all three differ for 32 curves."""
    round_of_colours = index // len(COLOURS)
    return {
        "color": COLOURS[index % len(COLOURS)],
        "marker": MARKERS[(index + round_of_colours) % len(MARKERS)],
        "linestyle": DASHES[round_of_colours % len(DASHES)],
    }


def make_two_panels(title: str, *, bottom: float = 0.14) -> tuple[Any, Any, Any]:
    """A figure with two axes side by side, made without pyplot, so that no global state is touched.

    `bottom` is the share of the height kept free for a legend and axis names.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(SIZE[0] / DPI, SIZE[1] / DPI), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(1, 2, left=0.065, right=0.98, top=0.86, bottom=bottom, wspace=0.2)
    left, right = figure.add_subplot(grid[0]), figure.add_subplot(grid[1])
    figure.text(0.065, 0.945, _short(title), fontsize=11, color=INK, weight="bold", va="center", parse_math=False)
    for axes in (left, right):
        _quiet(axes)
    return figure, left, right


def save_figure(figure: Any, path: str | Path) -> Path:
    """Write the PNG of exactly SIZE pixels, never half a file; raises AptlabError if the place cannot be written."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        set_plain_texts(figure)
        with open_file(temporary, "xb") as file:
            figure.savefig(file, format="png", dpi=DPI, metadata={"Software": "aptlab"})
        temporary.replace(path)
    except OSError as error:
        raise AptlabError(f"cannot write {path}: {error.strerror or error}; choose another folder") from error
    finally:
        temporary.unlink(missing_ok=True)
    return path


def set_plain_texts(figure: Any) -> None:
    """No text of a figure is a formula, but for ticks, which matplotlib writes itself; controls are spelled out."""
    from matplotlib.text import Text

    ticks = {
        id(label)
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks())
        for label in (tick.label1, tick.label2)
    }
    for text in figure.findobj(Text):
        if id(text) not in ticks:
            text.set_parse_math(False)
            text.set_text("\n".join(map(show_line, text.get_text().split("\n"))))


def set_heading(axes: Any, text: str) -> None:
    """The line above a panel."""
    axes.set_title(text, loc="left", fontsize=9, color=INK, pad=7)


def label_empty_panel(axes: Any, text: str) -> None:
    """A panel without data says why."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=FAINT, fontsize=9)
    axes.set_xticks([])
    axes.set_yticks([])


def format_plain_ticks(axis: Any) -> None:
    """Ticks of a logarithmic axis as 2, 5, 10, 200 instead of powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0), numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}" if value < 1e6 else f"{value:.0e}"))
    axis.set_minor_formatter(NullFormatter())


def _quiet(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(labelsize=8, colors=INK, color=FAINT, length=3)
    axes.tick_params(which="minor", length=0)
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.xaxis.label.set(size=9, color=INK)
    axes.yaxis.label.set(size=9, color=INK)


def _short(title: str, limit: int = 120) -> str:
    title = " ".join(title.split())
    return title if len(title) <= limit else title[: limit - 1] + "…"
