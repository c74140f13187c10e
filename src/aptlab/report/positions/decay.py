"""How attention falls with distance: RoFormer's bound, and what the expected logit really does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aptlab.report.positions import logits
from aptlab.report.positions.board import HEIGHT, bands, board, curves, marked, marks, titled, token_axis
from aptlab.report.positions.lines import Tables, binned, bins, line
from aptlab.report.positions.turning import Array, Setting, Turning

TITLE = "Decay with distance: {}"
CHUNK = 4096  # distances at a time


def measure(turnings: Sequence[Turning], setting: Setting) -> Tables:
    """Per bin of distance: the bound and the expected logit of equal unit vectors, each with its range in the bin."""
    groups = bins(setting.length - 1)
    distances = np.concatenate(groups)
    tables: dict[str, list[Any]] = {"": [], "logit": []}
    for turning in turnings:
        chunks = [distances[i : i + CHUNK] for i in range(0, len(distances), CHUNK)]
        bound = np.concatenate([abel_bound(turning, chunk, setting.length) for chunk in chunks])
        tables[""].append(line(turning, binned(groups, bound)))
        logit = np.concatenate([logits.by_distance(turning, chunk, setting.length) for chunk in chunks])
        tables["logit"].append(line(turning, binned(groups, logit)))
    return tables


def abel_bound(turning: Turning, distances_X: Array, length: int) -> Array:
    """[X] mean over j of |S_j|, S_j = sum over i < j of w_i exp(1j · phi_i), for j = 1 .. P.

    The logit of any q, k is at most max_i |h_(i+1) - h_i| times sum_j |S_j|, with h_i the product of both in pair i
    (Su et al. 2021, arXiv:2104.09864, section 3.4.3, eq. 37; their figure 2 shows this mean). phi_i is the angle at a
    distance, w_i = 1 except in rules that decay. Averaged over first positions where a rule is not relative.
    """
    found = []
    for start in logits.starts(turning):
        angle_XP, size_XP = logits.between(turning, distances_X + start, np.full_like(distances_X, start), length)
        found.append(np.abs(np.cumsum(size_XP * np.exp(1j * angle_XP), axis=1)).mean(1))
    return np.mean(found, axis=0)


def draw(tables: Tables, turnings: Sequence[Turning], setting: Setting, *, title: str, path: Path) -> Path:
    """The bound left, the expected logit right."""
    del turnings
    figure = board(title, [(2, HEIGHT)], labels=[*(one.label for one in tables[""]), *marked(setting)])
    left, right = figure.panels[0]
    for axes, name in ((left, ""), (right, "logit")):
        curves(figure, axes, tables[name], "distance", "mean")
        bands(axes, tables[name])
        token_axis(axes.xaxis, 1, setting.length * 1.3)
        marks(figure, axes, setting)
    left.set_ylim(bottom=0)
    right.axhline(0, color="#cccccc", linewidth=0.8, zorder=0)
    titled(left, "RoFormer's bound: mean of |S_j| (eq. 37)", "distance (tokens)")
    titled(right, "expected logit of equal unit vectors", "distance (tokens)")
    return figure.finish(path)
