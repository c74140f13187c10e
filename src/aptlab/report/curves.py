"""The figure of a comparison: loss curves with a band over seeds, and perplexity against length."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aptlab.report.comparison import Comparison
from aptlab.report.figure import Pairs, compute_loss_limits, extract_series, format_length_axis, format_ppl_axis
from aptlab.report.groups import RunGroup
from aptlab.report.statistics import ConfidenceInterval, compute_interval
from aptlab.report.style import (
    DPI,
    INK,
    SIZE,
    get_indexed_style,
    label_empty_panel,
    make_two_panels,
    save_figure,
    set_heading,
)
from aptlab.runs import Run
from aptlab.shown import count_nouns

LEGEND_LINE = 0.036  # share of the figure's height
MOST = 16  # curves that one figure can show and a reader can follow


def draw_comparison(comparison: Comparison, path: str | Path) -> Path:
    """Draw a PNG of 1600 x 700 pixels; one legend below both panels, so that it hides no curve."""
    groups, left_out = select_shown_groups(comparison)
    names = [group.name for group in groups]
    columns = _legend_columns(names)
    runs = sum(len(group.runs) for group in groups)
    many = f"{len(names)} settings, {runs} runs" if len(names) > 1 else count_nouns(runs, "run")
    title = f"{many}, the best of {len(names) + left_out} settings" if left_out else many
    figure, left, right = make_two_panels(title, bottom=0.165 + LEGEND_LINE * math.ceil(len(names) / columns))
    _losses(left, groups)
    _lengths(right, groups)
    handles, labels = _handles(left, right)
    figure.legend(
        handles,
        [_cut(label, 150 // columns) for label in labels],
        loc="lower center",
        bbox_to_anchor=(0.52, 0.005),
        ncols=columns,
        frameon=False,
        fontsize=8,
        labelcolor=INK,
        handlelength=2.4,
        columnspacing=1.8,
        labelspacing=0.35,
    )
    return save_figure(figure, path)


def select_shown_groups(comparison: Comparison) -> tuple[list[RunGroup], int]:
    """The groups to draw, in the order of the table, and how many of the worst are left out."""
    main = comparison.columns.index(comparison.metric)
    found = [(row[main], i) for i, row in enumerate(comparison.cells)]
    sign = 1 if comparison.metric.lower else -1
    order = sorted(found, key=lambda pair: math.inf if pair[0] is None else sign * pair[0].mean)
    shown = sorted(i for _, i in order[:MOST])
    return [comparison.groups[i] for i in shown], len(found) - len(shown)


def average_loss_curves(runs: Sequence[Run], per_step: float) -> list[tuple[float, ConfidenceInterval]]:
    """Mean validation loss with its interval at each step that every run of the group measured.

    x is the step times `per_step` (tokens), or the step itself if that is 1.
    """
    series: list[dict[int, float]] = [dict(extract_series(run.metrics(), "val/loss")) for run in runs]
    series = [values for values in series if values]
    if not series:
        return []
    steps = sorted(set.intersection(*(set(values) for values in series)))
    points = [(step * per_step, compute_interval([values[step] for values in series])) for step in steps]
    return [(x, found) for x, found in points if found is not None]


def _losses(axes: Any, groups: Sequence[RunGroup]) -> None:
    set_heading(axes, "validation loss (nats per token)" + _band(groups))
    tokens = all(result.steps and result.tokens for group in groups for result in group.results)
    drawn: list[Pairs] = []
    for i, group in enumerate(groups):
        per_step = group.results[0].tokens / group.results[0].steps if tokens else 1.0
        points = average_loss_curves(list(group.runs.values()), per_step)
        if not points:
            continue
        style = get_indexed_style(i)
        x = [point for point, _ in points]
        means = [y.mean for _, y in points]
        axes.plot(x, means, label=group.name, markersize=3, linewidth=1.3, **_thin(style, points))
        if any(y.half for _, y in points):
            low, high = [y.low for _, y in points], [y.high for _, y in points]
            axes.fill_between(x, low, high, color=style["color"], alpha=0.16 if len(groups) < 4 else 0.08, linewidth=0)
        drawn += [[(int(point), clip_interval(y)[side]) for point, y in points] for side in (0, 1)]
    if not drawn:
        label_empty_panel(axes, "no validation loss was recorded during training")
        return
    axes.set_ylim(*compute_loss_limits(drawn, skip=0.25))
    axes.set_xlim(0, max(x for points in drawn for x, _ in points) * 1.02 or 1)
    axes.set_xlabel("tokens" if tokens else "step")
    if tokens:
        from matplotlib.ticker import EngFormatter

        axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def _lengths(axes: Any, groups: Sequence[RunGroup]) -> None:
    set_heading(axes, "perplexity at longer lengths" + _band(groups))
    drawn, contexts = [], {result.context for group in groups for result in group.results}
    for i, group in enumerate(groups):
        points = collect_length_points(group)
        if not points:
            continue
        shift = 2 ** (0.03 * (i - (len(groups) - 1) / 2) * min(1, 8 / len(groups)))
        x, y = [multiple * shift for multiple, _ in points], [found.mean for _, found in points]
        # An interval wider than its mean would reach below zero, where a logarithm has no place.
        below = [min(found.half or 0.0, 0.95 * found.mean) for _, found in points]
        bars = [below, [found.half or 0.0 for _, found in points]] if any(below) else None
        axes.errorbar(
            x, y, yerr=bars, label=group.name, markersize=4.5, linewidth=1.5, capsize=2.5, **get_indexed_style(i)
        )
        drawn += points
    if not drawn:
        label_empty_panel(axes, "no length was measured")
        return
    multiples = sorted({multiple for multiple, _ in drawn})
    context = contexts.pop() if len(contexts) == 1 else 0
    format_length_axis(axes, multiples, [f"{m:g}x\n{m * context:,.0f}" if context else f"{m:g}x" for m in multiples])
    axes.set_xlabel("multiple of the trained context" + (", tokens" if context else ""))
    ends = [clip_interval(y) for _, y in drawn]
    format_ppl_axis(axes, min(low for low, _ in ends), max(high for _, high in ends))


def clip_interval(found: ConfidenceInterval, most: float = 1.5) -> tuple[float, float]:
    """The part of an interval that counts for the scale: a very wide one may leave the panel, not flatten the rest."""
    return max(found.low, found.mean / most), min(found.high, found.mean * most)


def collect_length_points(group: RunGroup) -> list[tuple[float, ConfidenceInterval]]:
    """(multiple of the context, perplexity over seeds) of a group."""
    found: dict[float, list[float | None]] = {}
    for result in group.results:
        for row in result.lengths:
            found.setdefault(row["multiple"], []).append(row.get("ppl"))
    points = [(multiple, compute_interval(values)) for multiple, values in sorted(found.items())]
    return [(multiple, value) for multiple, value in points if value is not None]


def _band(groups: Sequence[RunGroup]) -> str:
    return ", mean and 95 % interval over seeds" if any(len(group.runs) > 1 for group in groups) else ""


def _thin(style: dict[str, Any], points: Sequence[Any]) -> dict[str, Any]:
    """At most 15 markers on a curve."""
    return {**style, "markevery": max(1, len(points) // 15)}


def _handles(*panels: Any) -> tuple[list[Any], list[str]]:
    """One entry per group, from the first panel that shows it."""
    found: dict[str, Any] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels()):
            found.setdefault(label, handle)
    return list(found.values()), list(found)


def _legend_columns(names: Sequence[str]) -> int:
    longest = max(len(name) for name in names)
    return max(1, min(len(names), 4, int(SIZE[0] / DPI * 15 / (longest + 8))))


def _cut(label: str, limit: int) -> str:
    return label if len(label) <= limit else label[: limit - 1] + "…"
