"""What the base of the frequencies does: decay, wavelengths, complete rotations, and how large it must be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aptlab.nn.positions.rope import Standard
from aptlab.report.positions import logits
from aptlab.report.positions.board import (
    FONT,
    PanelFigure,
    draw_length_marks,
    format_token_axis,
    format_tokens,
    list_length_marks,
    make_panel_figure,
    set_panel_titles,
)
from aptlab.report.positions.lines import Curve, Tables, make_distance_bins, summarize_bins
from aptlab.report.positions.rotary_parts import AnalysisSettings, Array, RotaryPart, split_rotary_parts
from aptlab.report.style import FAINT, INK

TITLE = "The base of rope=standard"
SEARCHED = 131_072  # tokens up to which the least base is searched
CANDIDATES = np.geomspace(1e2, 1e9, 7001)  # bases that are tried
CHUNK, SHORT = 2048, 256  # distances at a time


def compute_tables(parts: Sequence[RotaryPart], setting: AnalysisSettings) -> Tables:
    """Of rope=standard with every base; the rules of the other analyses take no part.

    ""     expected logit of equal unit vectors in bins of distance
    bases  longest wavelength in tokens, pairs with a complete rotation within the trained and the target length
    least  the least base for a context (`positive_reach`)
    """
    del parts
    groups = make_distance_bins(setting.length - 1)
    curves, facts = [], []
    for number, base in enumerate(setting.bases):
        (part,) = split_rotary_parts("standard", Standard(base=base), setting)
        values = logits.average_by_distance(part, np.concatenate(groups), setting.length)
        curves.append(Curve(name=f"base {format_tokens(base)}", columns=summarize_bins(groups, values), number=number))
        theta = part.frequencies(setting.length)[0]
        facts.append(
            [base, 2 * math.pi / theta.min(), *(_rotations(theta, n) for n in (setting.original, setting.length))]
        )
    names = ("base", "longest", "turns_original", "turns_length")
    table = Curve(name="standard", columns=dict(zip(names, np.array(facts).T, strict=True)))
    return {"": curves, "bases": [table], "least": [find_least_bases(setting)]}


def find_positive_length(base: float, head_dim: int, longest: int, known: int = 0) -> int:
    """The most tokens L (at most `longest`) with sum_i cos(m theta_i) >= 0 for every m = 0 .. L - 1.

    That sum, over D/2 pairs, is by how much equal content attracts a query more than other content on average, so a
    base suffices for a context only if it stays positive. The least base for L is the infimum of those that do (Men et
    al. 2024, arXiv:2405.14591, theorem 1 and their lower bound; not monotone in the base).

    If a sum is negative within the `known` first distances the answer is some distance in there: the last ones are
    looked at first, because sums fall with distance.
    """
    for last in range(known, 0, -SHORT):
        if len(_negative(base, head_dim, max(last - SHORT, 0), last)):
            return last - 1
    for first in range(known, longest, CHUNK):
        below = _negative(base, head_dim, first, min(first + CHUNK, longest))
        if len(below):
            return int(below[0])
    return longest


def find_least_bases(setting: AnalysisSettings) -> Curve:
    """Columns context and base: the least base tried (0.2 % apart) that suffices; infinite where none does."""
    longest = min(setting.length, SEARCHED)
    records = [(0.0, 0)]  # bases that reach farther than all smaller ones, and how far
    for base in CANDIDATES.tolist():
        reached = find_positive_length(base, setting.head_dim, longest, known=records[-1][1])
        if reached > records[-1][1]:
            records.append((base, reached))
        if reached == longest:
            break
    contexts = np.unique(np.append(np.geomspace(64, max(longest, 65), 120).astype(int), longest))
    contexts = contexts[contexts <= longest]
    least = [next((base for base, reach in records if reach >= context), math.inf) for context in contexts]
    return Curve(name="standard", columns={"context": contexts, "base": np.array(least)})


def _negative(base: float, head_dim: int, first: int, end: int) -> Array:
    """Distances from `first` to `end` at which the sum is negative."""
    theta = base ** (-2 * np.arange(head_dim // 2) / head_dim)
    m = np.arange(first, end)
    return m[np.cos(m[:, None] * theta).sum(1) < 0]


def draw_figure(
    tables: Tables, parts: Sequence[RotaryPart], setting: AnalysisSettings, *, title: str, path: Path
) -> Path:
    """Decay and least base above, longest wavelength and complete rotations below."""
    del parts
    lines = tables[""]
    figure = make_panel_figure(
        title, [(2, 430), (2, 430)], labels=[*(line.name for line in lines), *list_length_marks(setting)]
    )
    (decay, least), (longest, rotations) = figure.panels
    _decays(figure, decay, lines, setting)
    _least(least, tables["least"][0], setting)
    (facts,) = tables["bases"]
    _by_base(longest, facts, {"longest": "longest"})
    format_token_axis(
        longest.yaxis,
        min(facts["longest"].min(), setting.original) / 3,
        max(facts["longest"].max(), setting.length) * 3,
    )
    draw_length_marks(figure, longest, setting, across=True)
    set_panel_titles(longest, "longest wavelength (tokens)", "base")
    _by_base(
        rotations,
        facts,
        {
            "turns_original": f"{format_tokens(setting.original)} tokens",
            "turns_length": f"{format_tokens(setting.length)} tokens",
        },
    )
    rotations.set_ylim(0, setting.head_dim // 2 * 1.08)
    set_panel_titles(rotations, f"pairs with a complete rotation, of {setting.head_dim // 2}", "base")
    return figure.finish(path)


def _rotations(theta: Array, length: int) -> int:
    return int((theta * length >= 2 * math.pi).sum())


def _decays(figure: PanelFigure, axes: Any, lines: Sequence[Curve], setting: AnalysisSettings) -> None:
    """Bases have an order, so their colours have one too."""
    from matplotlib import colormaps

    shades = colormaps["viridis"](np.linspace(0.0, 0.88, len(lines)))
    for line, shade in zip(lines, shades):
        (drawn,) = axes.plot(line["distance"], line["mean"], color=shade, linewidth=1.4)
        figure.key(line.name, drawn)
    format_token_axis(axes.xaxis, 1, setting.length * 1.3)
    axes.axhline(0, color="#cccccc", linewidth=0.8, zorder=0)
    draw_length_marks(figure, axes, setting)
    set_panel_titles(axes, "expected logit of equal unit vectors", "distance (tokens)")


def _least(axes: Any, line: Curve, setting: AnalysisSettings) -> None:
    known = np.isfinite(line["base"])
    axes.step(line["context"][known], line["base"][known], where="pre", color=INK, linewidth=1.5)
    axes.fill_between(
        line["context"],
        np.where(known, line["base"], CANDIDATES[-1]),
        1,
        step="pre",
        color=FAINT,
        alpha=0.15,
        linewidth=0,
    )
    format_token_axis(axes.xaxis, line["context"].min(), line["context"].max() * 1.1)
    high = max(setting.bases[-1], line["base"][known].max(initial=1e4)) * 3
    format_token_axis(axes.yaxis, CANDIDATES[0], high)
    axes.text(
        0.97,
        0.06,
        "too small: at some distance equal content repels",
        transform=axes.transAxes,
        ha="right",
        color=INK,
        fontsize=FONT,
    )
    set_panel_titles(axes, "least base for a context (Men et al. 2024)", "context (tokens)")


def _by_base(axes: Any, facts: Curve, columns: dict[str, str]) -> None:
    from aptlab.report.style import COLOURS, MARKERS

    for number, (column, label) in enumerate(columns.items()):
        axes.plot(
            facts["base"],
            facts[column],
            color=COLOURS[number],
            marker=MARKERS[number],
            markersize=4,
            linewidth=1.4,
            label=label,
        )
    format_token_axis(axes.xaxis, facts["base"].min() / 1.6, facts["base"].max() * 1.6)
    if len(columns) > 1:
        axes.legend(frameon=False, fontsize=FONT, labelcolor=INK, loc="lower left")
