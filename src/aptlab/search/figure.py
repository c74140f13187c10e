"""The picture of a search: the best score by evaluated tokens, and the factors by pair."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aptlab.report.style import (
    COLOURS,
    FAINT,
    INK,
    format_plain_ticks,
    get_indexed_style,
    label_empty_panel,
    make_two_panels,
    save_figure,
    set_heading,
)
from aptlab.search.evaluation_cache import CurvePoint
from aptlab.search.space import Factors


def draw_search_figure(
    curve: Sequence[CurvePoint],
    *,
    baselines: Mapping[str, float],
    known: Mapping[str, Factors],
    title: str,
    unit: str,
    path: Path,
) -> Path:
    """Write figure.png.

    curve      the best score after so many tokens; its last point holds the factors that are drawn
    baselines  scores of rules that need no search
    known      factors of such rules
    """
    figure, left, right = make_two_panels(title)
    draw_score_panel(left, curve, baselines, unit)
    draw_factor_panel(right, curve, known)
    return save_figure(figure, path)


def draw_score_panel(axes: Any, curve: Sequence[CurvePoint], baselines: Mapping[str, float], unit: str) -> None:
    """The best score as steps; a dashed line per baseline, named at the right."""
    set_heading(axes, f"best score ({unit}), less is better")
    if not curve:
        label_empty_panel(axes, "nothing is measured yet")
        return
    tokens, scores = [point.tokens for point in curve], [point.score for point in curve]
    axes.step(tokens, scores, where="post", color=COLOURS[1], linewidth=2, label=f"search {scores[-1]:.3f}")
    for index, (name, score) in enumerate(baselines.items()):
        style = get_indexed_style(index + 2)
        axes.axhline(score, color=style["color"], linewidth=1.2, linestyle=(0, (4, 2)), label=f"{name} {score:.3f}")
    axes.set_xlabel("evaluated tokens")
    axes.set_xlim(0, max(tokens) * 1.02 or 1)
    values = [value for value in (*scores, *baselines.values()) if 0 < value < math.inf]
    low, high = min(values, default=1.0), max(values, default=1.0)
    if high > 5 * low:
        axes.set_yscale("log")
        format_plain_ticks(axes.yaxis)
        axes.set_ylim(low / 1.5, high * 1.5)
    else:
        axes.set_ylim(0, high * 1.1)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1e6:g}M" if value >= 1e6 else f"{value:,.0f}")
    draw_legend(axes, "best")


def draw_legend(axes: Any, place: str) -> None:
    """Names on white, so that lines pass behind them."""
    box = axes.legend(fontsize=8, loc=place, labelcolor=INK, facecolor="white", edgecolor="white", framealpha=0.9)
    box.set_zorder(5)


def draw_factor_panel(axes: Any, curve: Sequence[CurvePoint], known: Mapping[str, Factors]) -> None:
    """Divisors by pair, logarithmic."""
    set_heading(axes, "divisor of each pair's frequency")
    for index, (name, factors) in enumerate(known.items()):
        style = get_indexed_style(index + 2)
        axes.plot(factors, color=style["color"], linewidth=1.2, linestyle=(0, (4, 2)), label=name)
    if curve:
        axes.plot(curve[-1].factors, color=COLOURS[1], marker="o", markersize=3.5, linewidth=1.8, label="search")
    axes.set_yscale("log", base=2)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.axhline(1, color=FAINT, linewidth=0.8)
    axes.set_xlabel("pair, fastest first")
    draw_legend(axes, "lower right")
