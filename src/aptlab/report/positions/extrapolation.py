"""Which angles of a longer text a model has never seen in training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aptlab.report.positions.board import (
    HEIGHT,
    draw_curves,
    draw_length_marks,
    format_token_axis,
    list_length_marks,
    make_panel_figure,
    set_panel_titles,
)
from aptlab.report.positions.lines import Tables, make_curve
from aptlab.report.positions.rotary_parts import AnalysisSettings, Array, RotaryPart

TITLE = "Angles never seen in training: {}"
POINTS = 400
FARTHEST = 4096  # trained lengths up to which `reach` looks
CLOSE = 1e-9  # rounding that does not count as unseen


def compute_tables(parts: Sequence[RotaryPart], setting: AnalysisSettings) -> Tables:
    """Per distance: share of pairs that meet unseen angles up to there, and their mean and largest overshoot.

    In training, pair i covered the arc from 0 up to theta_i · original of the plain rule, or the whole circle. At
    distance p in a text of p + 1 tokens it has covered theta'_i · p. The overshoot is the widest angle on the circle
    between what it has covered and the trained arc, in radians, at most pi.
    """
    grid = np.geomspace(1, setting.length - 1, POINTS).round()
    distances = np.unique(np.append(grid, [setting.original - 1, setting.original])).astype(int)
    distances = distances[distances < setting.length]
    found = []
    for part in parts:
        pairs = [compute_overshoot(part, int(distance), setting.original) for distance in distances]
        unseen_XP, over_XP = (np.array(values) for values in zip(*pairs, strict=True))
        columns = {"distance": distances, "unseen": unseen_XP.mean(1), "mean": over_XP.mean(1), "max": over_XP.max(1)}
        found.append(make_curve(part, columns))
    return {"": found}


def compute_overshoot(part: RotaryPart, distance: int, original: int) -> tuple[Array, Array]:
    """[P] whether a pair meets unseen angles up to a distance, and [P] radians from the trained arc to the farthest."""
    arc = part.trained(original).max(0) * original
    covered = part.frequencies(distance + 1).max(0) * distance
    unseen = (arc < 2 * math.pi * (1 - CLOSE)) & (covered > 0) & (covered >= arc * (1 - CLOSE))
    farthest = np.minimum(covered, (arc + 2 * math.pi) / 2)  # halfway round the gap, or not that far yet
    return unseen, np.where(unseen, np.maximum(farthest - arc, 0.0), 0.0)


def find_seen_length(part: RotaryPart, original: int) -> int | None:
    """The longest text in which every pair stays within its trained angles; None if there is no end in sight."""

    def unseen(distance: int) -> bool:
        return bool(compute_overshoot(part, distance, original)[0].any())

    steps = np.unique(np.geomspace(1, original * FARTHEST, 400).astype(int)).tolist()
    first = next((i for i, distance in enumerate(steps) if unseen(distance)), None)
    if first is None:
        return None
    last, beyond = (steps[first - 1] if first else 0), steps[first]
    while beyond - last > 1:
        middle = (last + beyond) // 2
        last, beyond = (last, middle) if unseen(middle) else (middle, beyond)
    return last + 1


def draw_figure(
    tables: Tables, parts: Sequence[RotaryPart], setting: AnalysisSettings, *, title: str, path: Path
) -> Path:
    """Share of pairs left, mean overshoot right."""
    del parts
    lines = tables[""]
    figure = make_panel_figure(
        title, [(2, HEIGHT)], labels=[*(line.label for line in lines), *list_length_marks(setting)]
    )
    left, right = figure.panels[0]
    percent = [_percent(line) for line in lines]
    draw_curves(figure, left, percent, "distance", "unseen", covered=True)
    draw_curves(figure, right, lines, "distance", "mean", covered=True)
    low = max(1, setting.original / 4)
    for axes in (left, right):
        format_token_axis(axes.xaxis, low, setting.length * 1.2)
        draw_length_marks(figure, axes, setting)
    for drawn in left.lines:
        drawn.set_drawstyle("steps-post")
    left.set_ylim(-1, max(10.0, 1.1 * max(line["unseen"].max() for line in percent)))
    right.set_ylim(-0.01, max(0.1, 1.1 * max(line["mean"].max() for line in lines)))
    set_panel_titles(left, "pairs that meet angles never seen in training (%)", "distance (tokens)")
    set_panel_titles(right, "mean overshoot over all pairs (radians beyond the trained arc)", "distance (tokens)")
    return figure.finish(path)


def _percent(curve: Any) -> Any:
    return type(curve)(
        name=curve.name,
        part=curve.part,
        number=curve.number,
        place=curve.place,
        columns={**curve.columns, "unseen": 100 * curve["unseen"]},
    )
