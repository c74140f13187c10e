"""Figures of a run over several tasks: the score matrix as colours, and the score on each task over steps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aptlab.report.heatmap import HeatPanel, draw_heatmaps
from aptlab.report.style import FAINT, INK, get_indexed_style, make_two_panels, save_figure, set_heading


def draw_task_matrix(record: Mapping[str, Any], path: Path, *, title: str) -> Path:
    """R as a heat map, bright where the model is good; the scores before training stand above a line."""
    names, matrix = record["tasks"], record["matrix"]
    rows = [f"after {name}" for name, _ in zip(names, matrix)]
    values = [list(scores) for scores in matrix]
    if record["baseline"]:
        rows, values = [*rows, "untrained"], [*values, list(record["baseline"])]
    panel = HeatPanel(
        title=f"{record['score']} (larger is better)",
        rows=rows,
        columns=names,
        values=values,
        digits=2,
        apart=int(bool(record["baseline"])),
        low=min((value for line in matrix for value in line), default=None),
        high=max((value for line in matrix for value in line), default=None),
    )
    return draw_heatmaps([panel], title=title, path=path, across="measured on", down="trained up to")


def draw_task_curves(record: Mapping[str, Any], path: Path, *, title: str) -> Path:
    """The score on each task over steps, with the ends of tasks, and the mean over the tasks learned so far."""
    figure, left, right = make_two_panels(title)
    names, points, ends = record["tasks"], record["points"], record["ends"]
    steps = [point["step"] for point in points]
    for task, name in enumerate(names):
        left.plot(steps, [point["scores"][task] for point in points], label=name, **get_indexed_style(task))
    set_heading(left, f"{record['score']} on each task (larger is better)")
    left.legend(frameon=False, fontsize=8, labelcolor=INK)
    known = [
        (end, sum(scores[: task + 1]) / (task + 1)) for task, (end, scores) in enumerate(zip(ends, record["matrix"]))
    ]
    right.plot([step for step, _ in known], [score for _, score in known], **get_indexed_style(len(names)))
    set_heading(right, "mean over the tasks learned so far")
    for axes in (left, right):
        axes.set_xlabel("step")
        for end in ends[:-1]:
            axes.axvline(end, color=FAINT, linewidth=0.8, linestyle=":")
    return save_figure(figure, path)
