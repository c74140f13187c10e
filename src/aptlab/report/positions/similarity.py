"""What distance does to the logit of equal content, and whether position itself does anything."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aptlab.report.positions import logits
from aptlab.report.positions.board import (
    HEIGHT,
    PanelFigure,
    draw_bands,
    draw_curves,
    draw_length_marks,
    format_token_axis,
    get_curve_style,
    list_length_marks,
    make_panel_figure,
    set_panel_titles,
)
from aptlab.report.positions.lines import Tables, make_curve, make_distance_bins, summarize_bins
from aptlab.report.positions.rotary_parts import AnalysisSettings, Array, RotaryPart
from aptlab.report.style import FAINT, INK, label_empty_panel

TITLE = "Similarity and distance: {}"
NOISE = "unrelated q, k: ± 1 std"
NEAR = 64  # tokens of the left panel
MATRIX = 96  # tokens of a picture
PICTURES = 4
SAMPLES = 256
PAIRS = 128  # random pairs of tokens whose logits are shifted


def compute_tables(parts: Sequence[RotaryPart], setting: AnalysisSettings) -> Tables:
    """Three tables.

    ""      near every distance: expected logit of equal unit vectors (`logits`), and the 5 to 95 % of random ones
    far     the same in bins of distance up to the target length: mean, low and high of each bin
    matrix  the expected logit of query m and key n <= m at the start of a text, for whole rules
    shift   mean and largest |logit(m + s, n + s) - logit(m, n)| of random q, k with unit variance, over sqrt(D)
    """
    near = np.arange(min(NEAR, setting.length))
    far = make_distance_bins(setting.length - 1)
    tables: dict[str, list[Any]] = {"": [], "far": [], "matrix": [], "shift": []}
    for part in parts:
        shares = logits.sample_pair_shares(part, SAMPLES, setting.seed)
        low, high = np.quantile(logits.compute_random_logits(part, shares, near, setting.length), (0.05, 0.95), axis=0)
        mean = logits.average_by_distance(part, near, setting.length)
        tables[""].append(make_curve(part, {"distance": near, "mean": mean, "low": low, "high": high}))
        values = logits.average_by_distance(part, np.concatenate(far), setting.length)
        tables["far"].append(make_curve(part, summarize_bins(far, values)))
        tables["shift"].append(make_curve(part, compute_shift_error(part, setting)))
    for part in _firsts(parts)[:PICTURES]:
        tables["matrix"].append(make_curve(part, compute_logit_matrix(part, setting), part="", place=0))
    return tables


def compute_logit_matrix(part: RotaryPart, setting: AnalysisSettings) -> dict[str, Array]:
    """Columns m, n and logit of a text's first tokens, causal."""
    m, n = np.tril_indices(min(MATRIX, setting.length))
    return {"m": m, "n": n, "logit": logits.compute_similarity(part, m, n, setting.length, text=True)}


def compute_shift_error(part: RotaryPart, setting: AnalysisSettings) -> dict[str, Array]:
    """Columns shift, mean and max of the change of a logit. A relative rule has rounding errors only."""
    random = np.random.default_rng(setting.seed)
    n = random.integers(0, 64, PAIRS)
    m = n + random.integers(0, 64, PAIRS)
    q, k = (
        random.standard_normal((PAIRS, len(part.pairs), 2)) @ np.array([1, 1j]) for _ in range(2)
    )  # each pair of dims as one complex number
    shifts = np.unique(np.append(np.geomspace(1, setting.length - 1, 40).astype(int), [1, 2, 3, 4]))

    def logit(shift: int) -> Array:
        angle, size = logits.compute_pair_angles(part, m + shift, n + shift, setting.length)
        rotated = (q * k.conj() * size * np.exp(1j * angle)).real.sum(1) / math.sqrt(setting.head_dim)
        return rotated * part.temperatures(m + shift, setting.length)

    before = logit(0)
    change = np.array([np.abs(logit(int(shift)) - before) for shift in shifts])
    return {"shift": shifts, "mean": change.mean(1), "max": change.max(1)}


def draw_figure(
    tables: Tables, parts: Sequence[RotaryPart], setting: AnalysisSettings, *, title: str, path: Path
) -> Path:
    """Distances near and far above; below the matrices, and the change under shifts if a rule is not relative."""
    absolute = [curve for curve, part in zip(tables["shift"], parts) if not part.rule.relative]
    pictures = tables["matrix"][: PICTURES - bool(absolute)]
    columns = len(pictures) + bool(absolute)
    labels = [*(curve.label for curve in tables[""]), NOISE, *list_length_marks(setting)]
    figure = make_panel_figure(title, [(2, HEIGHT), (columns, (HEIGHT, HEIGHT, 430, 330)[columns - 1])], labels=labels)
    left, right = figure.panels[0]
    draw_curves(figure, left, tables[""], "distance", "mean")
    draw_curves(figure, right, tables["far"], "distance", "mean")
    draw_bands(left, tables[""])
    draw_bands(right, tables["far"])
    noise = 1 / math.sqrt(setting.head_dim)
    for axes in (left, right):
        grey = axes.axhspan(-noise, noise, color=FAINT, alpha=0.15, linewidth=0, zorder=0)
        figure.key(NOISE, grey)
    left.set_xlim(0, len(tables[""][0]["distance"]) - 1)
    format_token_axis(right.xaxis, 1, setting.length * 1.3)
    draw_length_marks(figure, right, setting)
    shaded = ", 5 to 95 % of random ones shaded" if len(tables[""]) <= 2 else ""
    set_panel_titles(left, "expected logit of equal unit vectors" + shaded, "distance (tokens)")
    set_panel_titles(right, "the same up to the target length, mean of bins of distance", "distance (tokens)")
    _pictures(figure, figure.panels[1], pictures)
    if absolute:
        _shifts(figure, figure.panels[1][-1], absolute, setting)
    return figure.finish(path)


def _firsts(parts: Sequence[RotaryPart]) -> list[RotaryPart]:
    """Each rule once, with all pairs of its first layer and head."""
    from aptlab.report.positions.rotary_parts import select_all_pairs

    return [select_all_pairs((part,)) for part in parts if part.place == 0]


def _pictures(figure: PanelFigure, panels: Sequence[Any], pictures: Sequence[Any]) -> None:
    """Expected logits of m against n, all with the same colours; red repels, where anything does."""
    values = np.concatenate([picture["logit"] for picture in pictures])
    most = np.abs(values).max()
    signed = values.min() < -0.02 * most
    style = {"cmap": "RdBu", "vmin": -most, "vmax": most} if signed else {"cmap": "cividis", "vmin": 0, "vmax": most}
    for axes, picture in zip(panels, pictures):
        size = int(picture["m"].max()) + 1
        square = np.full((size, size), np.nan)
        square[picture["m"], picture["n"]] = picture["logit"]
        image = axes.imshow(square, interpolation="nearest", aspect="equal", **style)
        axes.grid(visible=False)
        axes.set_anchor("NW")
        set_panel_titles(axes, picture.name, "key n")
        axes.set_ylabel("query m", fontsize=9, color=INK)
        inset = axes.inset_axes((0.9, 0.45, 0.035, 0.5))
        bar = figure.figure.colorbar(image, cax=inset)
        bar.outline.set_visible(False)
        inset.tick_params(labelsize=7, colors=FAINT, length=0)
        inset.yaxis.set_ticks_position("left")


def _shifts(figure: PanelFigure, axes: Any, lines: Sequence[Any], setting: AnalysisSettings) -> None:
    for line in lines:
        shown = line["mean"] > 0
        if shown.any():
            style = {**get_curve_style(line, marker=True), "linestyle": ""}
            axes.plot(line["shift"][shown], line["mean"][shown], **style)
    if not axes.lines:
        label_empty_panel(axes, "no shift changes a logit")
        return
    format_token_axis(axes.xaxis, 0.8, setting.length)
    axes.set_xticks([tick for tick in (1, 100, 10_000, 1_000_000) if tick < setting.length])
    axes.set_ylim(bottom=0)
    set_panel_titles(axes, "mean change of logits by a shift", "shift of both (tokens)")
