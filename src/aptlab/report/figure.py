"""The figure of one run: how the loss fell, and what longer text costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from aptlab.report.style import (
    COLOURS,
    FAINT,
    INK,
    format_plain_ticks,
    label_empty_panel,
    make_two_panels,
    save_figure,
    set_heading,
)

Pairs = list[tuple[int, float]]


def draw_run_figure(
    metrics: Mapping[str, Sequence[Any]],
    lengths: Sequence[Mapping[str, Any]],
    *,
    title: str,
    path: Path,
    context: int,
) -> Path:
    """Draw figure.png of 1600 x 700 pixels: training and validation loss left, perplexity against length right.

    `metrics` is either {name: [(step, value), …]} or the columns of `Run.metrics()` (with a `step` column and None
    where nothing was measured). `lengths` is that of result.json; a line marks the trained `context` in tokens.
    Raises AptlabError if the file cannot be written.
    """
    figure, left, right = make_two_panels(title)
    draw_losses(left, extract_series(metrics, "train/loss"), extract_series(metrics, "val/loss"))
    draw_length_panel(right, lengths, context)
    return save_figure(figure, path)


def extract_series(metrics: Mapping[str, Sequence[Any]], name: str) -> Pairs:
    """(step, value) of one quantity from either form of metrics; what is not finite is left out."""
    column = metrics.get(name, ())
    if any(isinstance(item, list | tuple) for item in column):
        pairs = list(column)
    else:
        pairs = list(zip(metrics.get("step", ()), column))
    return [(int(x), float(y)) for x, y in pairs if x is not None and y is not None and math.isfinite(y)]


def draw_losses(axes: Any, train: Pairs, val: Pairs) -> None:
    """Training loss faint with its running mean, validation loss with markers, the last values named."""
    set_heading(axes, "loss (nats per token)")
    if not train and not val:
        label_empty_panel(axes, "no loss was recorded")
        return
    if train:
        steps, values = zip(*train)
        if len(train) > 20:
            axes.plot(steps, values, color=COLOURS[0], alpha=0.25, linewidth=0.8)
            values = smooth_values(values)
        marker = "o" if len(train) <= 20 else ""  # a single point has no line
        label = f"train {values[-1]:.3f}"
        axes.plot(steps, values, color=COLOURS[0], linewidth=1.5, marker=marker, markersize=3.5, label=label)
    if val:
        steps, values = zip(*val)
        marker = "o" if len(val) <= 40 else ""
        label = f"validation {values[-1]:.3f}"
        axes.plot(steps, values, color=COLOURS[1], linewidth=1.5, marker=marker, markersize=3.5, label=label)
    axes.set_ylim(*compute_loss_limits([train, val]))
    axes.set_xlim(0, max(step for step, _ in train + val) * 1.02 or 1)
    axes.set_xlabel("step")
    axes.legend(frameon=False, fontsize=9, loc="upper right", labelcolor=INK)


def draw_length_panel(axes: Any, lengths: Sequence[Mapping[str, Any]], context: int) -> None:
    """Perplexity against length, both logarithmic where that helps, with the value beside each point."""
    set_heading(axes, "perplexity at longer lengths")
    rows = sorted((r for r in lengths if r.get("ppl") and math.isfinite(r["ppl"])), key=lambda r: r["length"])
    if not rows:
        label_empty_panel(axes, "no length was measured")
        return
    x, y = [row["length"] for row in rows], [row["ppl"] for row in rows]
    axes.axvline(context, color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
    axes.plot(x, y, color=COLOURS[2], marker="o", markersize=5, linewidth=1.5)
    format_length_axis(axes, x, [f"{length:,}\n{length / max(context, 1):g}x" for length in x])
    axes.set_xlabel("tokens of context")
    low, high = format_ppl_axis(axes, min(y), max(y))
    for i, (length, value) in enumerate(zip(x, y)):
        _value(axes, length, value, slope=y[min(i + 1, len(y) - 1)] / y[max(i - 1, 0)])
    at = 0.94 if y[0] < math.sqrt(low * high) else 0.06
    axes.text(context, at, "  trained length", transform=axes.get_xaxis_transform(), color=FAINT, fontsize=8)


def _value(axes: Any, x: float, y: float, *, slope: float) -> None:
    """A number beside a point, on the side where the line is not; `slope` is the ratio of its neighbours."""
    place: dict[str, Any] = {"xytext": (0, 7), "ha": "center"}
    if abs(slope - 1) > 0.03:
        place = {"xytext": (-6, 5), "ha": "right"} if slope > 1 else {"xytext": (6, 5), "ha": "left"}
    box = {"facecolor": "white", "linewidth": 0, "pad": 0.5}  # the line of the trained length passes behind
    axes.annotate(format_ppl(y), (x, y), textcoords="offset points", fontsize=8, color=INK, bbox=box, **place)


def format_length_axis(axes: Any, x: Sequence[float], names: Sequence[str]) -> None:
    """A log2 axis with a tick per measured length and room at both ends."""
    from matplotlib.ticker import NullLocator

    axes.set_xscale("log", base=2)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(list(x), list(names))
    axes.set_xlim(min(x) / 1.4, max(x) * 1.25)


def format_ppl_axis(axes: Any, low: float, high: float) -> tuple[float, float]:
    """Logarithmic from a factor of three on; returns the limits, with room above for labels."""
    from matplotlib.ticker import MaxNLocator

    if high > 3 * low:
        axes.set_yscale("log")
        format_plain_ticks(axes.yaxis)
        limits = (low / 1.3, high * 1.45)
    else:
        room = max(high - low, 0.1 * high)  # a flat line shall look flat
        axes.yaxis.set_major_locator(MaxNLocator(6))
        limits = (max(low - 0.3 * room, 0), high + 0.35 * room)
    axes.set_ylim(*limits)
    return max(limits[0], 1e-9), limits[1]


def compute_loss_limits(curves: Sequence[Pairs], skip: float = 0.08) -> tuple[float, float]:
    """y limits that leave the fall of the first steps out, so that the end can be told apart."""
    last = max(step for curve in curves for step, _ in curve)
    tail = [value for curve in curves for step, value in curve if step >= skip * last]
    low, high = min(tail), max(tail)
    room = max(high - low, 0.02 * abs(high), 1e-6)
    return low - 0.08 * room, high + 0.1 * room


def smooth_values(values: Sequence[float], share: float = 0.04) -> list[float]:
    """Centred running mean over `share` of the points; it does not lag, and its last value is a mean too."""
    half = max(1, round(share * len(values) / 2))
    total = list(accumulate(values, initial=0.0))
    out = []
    for i in range(len(values)):
        low, high = max(i - half, 0), min(i + min(half, i) + 1, len(values))
        out.append((total[high] - total[low]) / (high - low))
    return out


def format_ppl(value: float) -> str:
    """A perplexity in at most five characters where it can be.

    >>> [ppl(4.321), ppl(43.21), ppl(4321.0)]
    ['4.32', '43.2', '4,321']
    """
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"
