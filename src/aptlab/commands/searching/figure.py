"""The picture of a search: the best score by evaluated tokens, and the factors by pair."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aptlab.report.style import COLOURS, FAINT, INK, empty, heading, look, plain_numbers, save, two_panels
from aptlab.search.book import Point
from aptlab.search.space import Factors


def draw(
    curve: Sequence[Point],
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
    figure, left, right = two_panels(title)
    score_panel(left, curve, baselines, unit)
    factor_panel(right, curve, known)
    return save(figure, path)


def score_panel(axes: Any, curve: Sequence[Point], baselines: Mapping[str, float], unit: str) -> None:
    """The best score as steps; a dashed line per baseline, named at the right."""
    heading(axes, f"best score ({unit}), less is better")
    if not curve:
        empty(axes, "nothing is measured yet")
        return
    tokens, scores = [point.tokens for point in curve], [point.score for point in curve]
    axes.step(tokens, scores, where="post", color=COLOURS[1], linewidth=2, label=f"search {scores[-1]:.3f}")
    for index, (name, score) in enumerate(baselines.items()):
        style = look(index + 2)
        axes.axhline(score, color=style["color"], linewidth=1.2, linestyle=(0, (4, 2)), label=f"{name} {score:.3f}")
    axes.set_xlabel("evaluated tokens")
    axes.set_xlim(0, max(tokens) * 1.02 or 1)
    values = [value for value in (*scores, *baselines.values()) if 0 < value < math.inf]
    low, high = min(values, default=1.0), max(values, default=1.0)
    if high > 5 * low:
        axes.set_yscale("log")
        plain_numbers(axes.yaxis)
        axes.set_ylim(low / 1.5, high * 1.5)
    else:
        axes.set_ylim(0, high * 1.1)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1e6:g}M" if value >= 1e6 else f"{value:,.0f}")
    legend(axes, "best")


def legend(axes: Any, place: str) -> None:
    """Names on white, so that lines pass behind them."""
    box = axes.legend(fontsize=8, loc=place, labelcolor=INK, facecolor="white", edgecolor="white", framealpha=0.9)
    box.set_zorder(5)


def factor_panel(axes: Any, curve: Sequence[Point], known: Mapping[str, Factors]) -> None:
    """Divisors by pair, logarithmic."""
    heading(axes, "divisor of each pair's frequency")
    for index, (name, factors) in enumerate(known.items()):
        style = look(index + 2)
        axes.plot(factors, color=style["color"], linewidth=1.2, linestyle=(0, (4, 2)), label=name)
    if curve:
        axes.plot(curve[-1].factors, color=COLOURS[1], marker="o", markersize=3.5, linewidth=1.8, label="search")
    axes.set_yscale("log", base=2)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.axhline(1, color=FAINT, linewidth=0.8)
    axes.set_xlabel("pair, fastest first")
    legend(axes, "lower right")
