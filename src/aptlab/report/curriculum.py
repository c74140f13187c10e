"""The figure of a curriculum: how hard the rows were that were trained on, and what the model said to it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aptlab.report.figure import Pairs, extract_series
from aptlab.report.style import (
    COLOURS,
    INK,
    format_plain_ticks,
    get_indexed_style,
    label_empty_panel,
    make_two_panels,
    save_figure,
    set_heading,
)

PREFIX = "curriculum/"
Entry = Mapping[str, float]


def draw_curriculum_timeline(
    metrics: Mapping[str, Sequence[Any]],
    timeline: Sequence[Entry],
    *,
    names: Sequence[str],
    steps: int,
    title: str,
    path: Path,
) -> Path:
    """Draw a PNG of 1600 x 700 pixels: difficulty and choices left, what was measured for them right.

    metrics   as `draw_run_figure` takes them, with curriculum/difficulty
    timeline  what was decided, by step: curriculum/metric (a number into `names`) or curriculum/level, and measurements
    steps     of the whole run

    Raises AptlabError if the file cannot be written.
    """
    figure, left, right = make_two_panels(title)
    draw_difficulty(left, extract_series(metrics, f"{PREFIX}difficulty"), timeline, names, steps)
    draw_measurements(right, timeline, steps)
    return save_figure(figure, path)


def draw_difficulty(axes: Any, pairs: Pairs, timeline: Sequence[Entry], names: Sequence[str], steps: int) -> None:
    """Mean rank of the rows of a step, over bands that say by which metric, or from which levels, they were taken."""
    key, found = find_bands(timeline)
    set_heading(axes, "difficulty of the rows trained on (mean rank by the first metric)")
    for i, (step, value) in enumerate(found):
        end = found[i + 1][0] if i + 1 < len(found) else steps
        colour = COLOURS[int(value) % len(COLOURS)]
        axes.axvspan(step, max(end, step), color=colour, alpha=0.16, linewidth=0)
    for value in sorted({value for _, value in found}):
        name = names[int(value)] if key == "metric" and int(value) < len(names) else f"{key} {value:.0f}"
        axes.plot([], [], color=COLOURS[int(value) % len(COLOURS)], alpha=0.4, linewidth=6, label=name)
    if pairs:
        at, values = zip(*pairs, strict=True)
        axes.plot(at, values, color=INK, linewidth=1.3, marker="o" if len(pairs) <= 20 else "", markersize=3)
    elif not found:
        label_empty_panel(axes, "no difficulty was recorded")
        return
    axes.set_ylim(0, 1)
    axes.set_xlim(0, max(steps, 1))
    axes.set_xlabel("step")
    if found:
        axes.legend(frameon=False, fontsize=8, loc="upper left", labelcolor=INK, ncols=min(4, len(names) or 4))


def find_bands(timeline: Sequence[Entry]) -> tuple[str, list[tuple[float, float]]]:
    """The quantity that names the bands, and (step, value) wherever it changes; the last one of a step counts."""
    for key in ("metric", "level"):
        last = {entry["step"]: entry[PREFIX + key] for entry in timeline if PREFIX + key in entry}
        if last:
            pairs = sorted(last.items())
            return key, [pair for i, pair in enumerate(pairs) if i == 0 or pairs[i - 1][1] != pair[1]]
    return "metric", []


def draw_measurements(axes: Any, timeline: Sequence[Entry], steps: int) -> None:
    """Perplexity of the slices that could come next, or accuracy and its average on the level."""
    perplexities = sorted({key for entry in timeline for key in entry if key.startswith(f"{PREFIX}ppl_")})
    keys = perplexities or [f"{PREFIX}accuracy", f"{PREFIX}competence"]
    graded = any(f"{PREFIX}accuracy" in entry for entry in timeline)
    what = "perplexity of the next slices" if perplexities else "accuracy on the level, and competence"
    set_heading(axes, what if perplexities or graded else "what the model was asked")
    drawn = False
    for i, key in enumerate(keys):
        pairs = [(entry["step"], entry[key]) for entry in timeline if math.isfinite(entry.get(key, math.nan))]
        if not pairs or not (perplexities or graded):
            continue
        drawn = True
        at, values = zip(*pairs, strict=True)
        name = key.removeprefix(PREFIX).removeprefix("ppl_")
        axes.plot(at, values, label=name, markersize=3, linewidth=1.2, **get_indexed_style(i))
    if not drawn:
        label_empty_panel(axes, "nothing was measured: the order did not depend on the model")
        return
    if perplexities:
        axes.set_yscale("log")
        format_plain_ticks(axes.yaxis)
    else:
        axes.set_ylim(0, 1)
    axes.set_xlim(0, max(steps, 1))
    axes.set_xlabel("step")
    axes.legend(frameon=False, fontsize=8, loc="upper right", labelcolor=INK)
