"""How attention falls with distance: RoFormer's bound, and what the expected logit really does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aptlab.report.positions import logits
from aptlab.report.positions.board import (
    HEIGHT,
    draw_bands,
    draw_curves,
    draw_length_marks,
    format_token_axis,
    list_length_marks,
    make_panel_figure,
    set_panel_titles,
)
from aptlab.report.positions.lines import Tables, make_curve, make_distance_bins, summarize_bins
from aptlab.report.positions.rotary_parts import AnalysisSettings, Array, RotaryPart

TITLE = "Decay with distance: {}"
CHUNK = 4096  # distances at a time


def compute_tables(parts: Sequence[RotaryPart], setting: AnalysisSettings) -> Tables:
    """Per bin of distance: the bound and the expected logit of equal unit vectors, each with its range in the bin."""
    groups = make_distance_bins(setting.length - 1)
    distances = np.concatenate(groups)
    tables: dict[str, list[Any]] = {"": [], "logit": []}
    for part in parts:
        chunks = [distances[i : i + CHUNK] for i in range(0, len(distances), CHUNK)]
        bound = np.concatenate([compute_abel_bound(part, chunk, setting.length) for chunk in chunks])
        tables[""].append(make_curve(part, summarize_bins(groups, bound)))
        logit = np.concatenate([logits.average_by_distance(part, chunk, setting.length) for chunk in chunks])
        tables["logit"].append(make_curve(part, summarize_bins(groups, logit)))
    return tables


def compute_abel_bound(part: RotaryPart, distances_X: Array, length: int) -> Array:
    """[X] mean over j of |S_j|, S_j = sum over i < j of w_i exp(1j · phi_i), for j = 1 .. P.

    The logit of any q, k is at most max_i |h_(i+1) - h_i| times sum_j |S_j|, with h_i the product of both in pair i
    (Su et al. 2021, arXiv:2104.09864, section 3.4.3, eq. 37; their figure 2 shows this mean). phi_i is the angle at a
    distance, w_i = 1 except in rules that decay. Averaged over first positions where a rule is not relative.
    """
    found = []
    for start in logits.choose_key_starts(part):
        angle_XP, size_XP = logits.compute_pair_angles(
            part, distances_X + start, np.full_like(distances_X, start), length
        )
        found.append(np.abs(np.cumsum(size_XP * np.exp(1j * angle_XP), axis=1)).mean(1))
    return np.mean(found, axis=0)


def draw_figure(
    tables: Tables, parts: Sequence[RotaryPart], setting: AnalysisSettings, *, title: str, path: Path
) -> Path:
    """The bound left, the expected logit right."""
    del parts
    figure = make_panel_figure(
        title, [(2, HEIGHT)], labels=[*(curve.label for curve in tables[""]), *list_length_marks(setting)]
    )
    left, right = figure.panels[0]
    for axes, name in ((left, ""), (right, "logit")):
        draw_curves(figure, axes, tables[name], "distance", "mean")
        draw_bands(axes, tables[name])
        format_token_axis(axes.xaxis, 1, setting.length * 1.3)
        draw_length_marks(figure, axes, setting)
    left.set_ylim(bottom=0)
    right.axhline(0, color="#cccccc", linewidth=0.8, zorder=0)
    set_panel_titles(left, "RoFormer's bound: mean of |S_j| (eq. 37)", "distance (tokens)")
    set_panel_titles(right, "expected logit of equal unit vectors", "distance (tokens)")
    return figure.finish(path)
