"""Tables and figures of a bench of stability. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from aptlab.report.style import get_indexed_style, make_two_panels, save_figure, set_heading
from aptlab.report.table import render_markdown_table, render_table
from aptlab.runs.atomic import write_text
from aptlab.stability.summarize import Record, StabilityRow, list_stresses, summarize_stress

HEAD = (
    *("method", "precision", "broke", "95 %", "at step", "skipped", "spikes", "max u", "> fp16", "> e4m3", "max logit"),
    *("best loss", "sensitivity", "area", "against the first", "ms/step", "parameters", "FLOPs/token"),
)
NONE = "-"


def write_report(records: Iterable[Record], folder: Path) -> list[str]:
    """`stability.md` with a table a stress and `<stress>.png`; returns the tables as text and where they are."""
    kept = list(records)
    lines, pages = [], ["# Stability under stress\n"]
    for stress in list_stresses(kept):
        rows = summarize_stress(kept, stress)
        cells = [format_row(row) for row in rows]
        lines.append(render_table(HEAD, cells, left=2, title=f"stress: {stress}"))
        pages.append(f"## {stress}\n\n{render_markdown_table(HEAD, cells, left=2)}\n{render_losses(rows)}")
        draw_stress(rows, stress, folder / f"{stress}.png")
    if lines:
        write_text(folder / "stability.md", "\n".join(pages))
        lines.append(f"tables and figures: {folder}")
    return lines


def format_row(row: StabilityRow) -> list[str]:
    """The cells of HEAD. What is not finite, as max |u| of a training that broke, is inf."""
    low, high = row.interval
    difference = NONE
    if row.difference is not None:
        difference = "{:+.3f} [{:+.3f}, {:+.3f}]".format(*row.difference)
    return [
        *(row.label, row.precision, f"{row.bad}/{row.trials}", f"{low:.0%} to {high:.0%}"),
        *(NONE if row.time_to_bad is None else f"{row.time_to_bad:g}", f"{row.skipped:.1%}", f"{row.spikes:.1%}"),
        *(format_size(row.peak), f"{row.beyond_fp16:.1e}", f"{row.beyond_e4m3:.1e}", format_size(row.logit)),
        *(NONE if row.best is None else f"{row.best:.3f}", f"{row.sensitivity:.3f}", f"{row.area:.3f}", difference),
        *(NONE if row.seconds is None else f"{1000 * row.seconds:.1f}", f"{row.parameters:,}", f"{row.flops:,}"),
    ]


def format_size(value: float | None) -> str:
    return "inf" if value is None else f"{value:.3g}"


def render_losses(rows: Sequence[StabilityRow]) -> str:
    """Mean final loss at each multiple of the tuned rate, as Markdown."""
    multiples = sorted({multiple for row in rows for multiple in row.final})
    head = ("method", "precision", *(f"x {multiple:g}" for multiple in multiples))
    cells = [[row.label, row.precision, *(format_loss(row.final.get(m)) for m in multiples)] for row in rows]
    return render_markdown_table(head, cells, left=2)


def format_loss(value: float | None) -> str:
    return NONE if value is None else f"{value:.3f}"


def draw_stress(rows: Sequence[StabilityRow], stress: str, path: Path) -> Path:
    """Final loss over the multiple of the rate, and the share of trials that broke with its interval."""
    figure, left, right = make_two_panels(f"Stability under stress: {stress}", bottom=0.2)
    names = [f"{row.label}, {row.precision}" for row in rows]
    for index, (row, name) in enumerate(zip(rows, names, strict=True)):
        points = [(multiple, loss) for multiple, loss in row.final.items() if loss is not None]
        if points:
            left.plot(*zip(*points, strict=True), label=name, **get_indexed_style(index))
        draw_share(right, index, row)
    set_heading(left, "final loss over the multiple of the tuned rate")
    left.set_xscale("log")
    set_heading(right, "share of trials that broke, Wilson's 95 %")
    right.set_yticks(range(len(rows)), names, fontsize=7)
    right.set_xlim(0, 1)
    if left.lines:
        figure.legend(loc="lower center", ncols=min(4, len(rows)), fontsize=7, frameon=False)
    return save_figure(figure, path)


def draw_share(axes: Any, index: int, row: StabilityRow) -> None:
    """One point with its interval."""
    low, high = row.interval
    share = row.bad / row.trials
    style = get_indexed_style(index)
    axes.errorbar(
        [share],
        [index],
        xerr=[[max(0.0, share - low)], [max(0.0, high - share)]],
        fmt=style["marker"],
        color=style["color"],
    )
