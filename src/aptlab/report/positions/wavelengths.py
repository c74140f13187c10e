"""How long each pair takes for a rotation, and by how much a rule slows it down."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aptlab.report.positions.board import (
    HEIGHT,
    PanelFigure,
    draw_curves,
    draw_length_marks,
    format_token_axis,
    list_length_marks,
    make_panel_figure,
    set_panel_titles,
)
from aptlab.report.positions.lines import Curve, Tables, make_curve
from aptlab.report.positions.rotary_parts import AnalysisSettings, Array, RotaryPart, count_seen_rotations

TITLE = "Wavelengths: {}"
WIDEST = 1e9  # tokens; slower pairs stand still for every text there is


def compute_tables(parts: Sequence[RotaryPart], setting: AnalysisSettings) -> Tables:
    """Per pair: frequency in radians per token, wavelength 2 pi / theta in tokens, divisor theta_standard / theta.

    The standard rule has the same base. A pair that does not rotate has an infinite wavelength.
    """
    found = []
    for part in parts:
        sets = part.frequencies(setting.length)
        for number, theta in enumerate(sets):
            words = (part.part, f"set {number + 1} of {len(sets)}" if len(sets) > 1 else "")
            with np.errstate(divide="ignore"):
                columns = {
                    "pair": np.array(part.pairs),
                    "frequency": theta,
                    "wavelength": 2 * math.pi / theta,
                    "divisor": part.plain() / theta,
                    "turns_original": theta * setting.original / (2 * math.pi),
                    "turns_length": theta * setting.length / (2 * math.pi),
                }
            label = ", ".join(word for word in words if word)
            found.append(make_curve(part, columns, part=label, place=part.place + number))
    return {"": found}


def find_critical_pair(part: RotaryPart, original: int) -> int | None:
    """The first rotating pair that did not complete a rotation within the trained length; None if all did.

    For the standard rule ceil(D/2 · log_base(L / 2 pi)) (Liu et al. 2023, arXiv:2310.05209, theorem 1).
    """
    seen = count_seen_rotations(part, original)
    slow = np.flatnonzero((seen < 1) & (seen > 0))
    return part.pairs[int(slow[0])] if len(slow) else None


def draw_figure(
    tables: Tables, parts: Sequence[RotaryPart], setting: AnalysisSettings, *, title: str, path: Path
) -> Path:
    """Wavelength left, divisor right, both against the number of the pair."""
    lines = tables[""]
    figure = make_panel_figure(
        title, [(2, HEIGHT)], labels=[*(line.label for line in lines), *list_length_marks(setting), "critical pair"]
    )
    left, right = figure.panels[0]
    shown = [_finite(line) for line in lines]
    few = setting.head_dim <= 64
    draw_curves(figure, left, shown, "pair", "wavelength", marker=few, covered=True)
    draw_curves(figure, right, shown, "pair", "divisor", marker=few, covered=True)
    every = np.concatenate([line["wavelength"] for line in shown])
    high = max(np.nanmax(every), setting.length) * 2
    format_token_axis(left.yaxis, min(np.nanmin(every), setting.original) / 2, high)
    _divisor_axis(right, np.concatenate([line["divisor"] for line in shown]))
    for axes in (left, right):
        axes.set_xlim(-0.02 * setting.head_dim, 0.51 * setting.head_dim)
    draw_length_marks(figure, left, setting, across=True)
    _critical(figure, parts, setting)
    set_panel_titles(left, "wavelength (tokens for one rotation)", "pair, fastest first")
    set_panel_titles(right, "divisor: frequency of the standard rule (same base) / frequency", "pair, fastest first")
    return figure.finish(path)


def _finite(curve: Curve) -> Curve:
    """The line with gaps where a pair stands still."""
    slow = ~(curve["wavelength"] < WIDEST)
    columns = {name: np.where(slow, np.nan, curve[name]) for name in ("wavelength", "divisor")}
    return Curve(
        name=curve.name, part=curve.part, number=curve.number, place=curve.place, columns={**curve.columns, **columns}
    )


def _divisor_axis(axes: Any, values: Array) -> None:
    low, high = np.nanmin(values), np.nanmax(values)
    if high / low < 3:
        axes.set_ylim(min(0.0, low), 1.15 * high)
    else:
        format_token_axis(axes.yaxis, low / 1.25, high * 1.4)


def _critical(figure: PanelFigure, parts: Sequence[RotaryPart], setting: AnalysisSettings) -> None:
    """A line at the first pair without a whole rotation in training; rules with other bases have others."""
    found = {find_critical_pair(part, setting.original) for part in parts if part.place == 0}
    pairs = sorted(pair for pair in found if pair is not None)
    for pair in pairs[:3]:
        for axes in figure.panels[0]:
            drawn = axes.axvline(pair, color="#6b6b6b", linewidth=1.0, linestyle=(0, (6, 1.5, 1, 1.5)), zorder=1)
            figure.key(f"critical pair {', '.join(map(str, pairs[:3]))}", drawn)
