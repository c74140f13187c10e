"""The pictures of an evaluation: loss by position, perplexity by length, answers found by depth or task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aptlab.report.figure import draw_length_panel
from aptlab.report.heatmap import HeatPanel, draw_heatmaps
from aptlab.report.style import COLOURS, FAINT, label_empty_panel, make_two_panels, save_figure, set_heading

Rows = Sequence[Mapping[str, Any]]


def draw_length_figure(lengths: Rows, positions: Rows, *, title: str, path: Path, context: int) -> Path:
    """Write figure.png; raises AptlabError if the file cannot be written."""
    figure, left, right = make_two_panels(title)
    draw_position_panel(left, positions, context)
    draw_length_panel(right, lengths, context)
    return save_figure(figure, path)


def draw_sliding_figure(lengths: Rows, *, title: str, path: Path, context: int) -> Path:
    """Write figure.png of a sliding window: perplexity with every token counted once, and with every window."""
    figure, left, right = make_two_panels(title)
    draw_length_panel(left, lengths, context)
    set_heading(left, "perplexity by window, every token once")
    draw_length_panel(right, [{**row, "ppl": row["chunk_ppl"]} for row in lengths], context)
    set_heading(right, "the same with every window counted alike")
    return save_figure(figure, path)


def draw_retrieval_heatmap(grid: Rows, lengths: Rows, *, title: str, path: Path) -> Path:
    """Write heatmap.png: share of answers found, and loss of the expected answers; rows are depths or tasks."""
    columns = [row["length"] for row in lengths]
    deep = grid[0]["depth"] is not None
    names = list(dict.fromkeys(row["depth"] if deep else row["task"] for row in grid))
    cells = {(row["depth"] if deep else row["task"], row["length"]): row for row in grid}
    rows = [f"{100 * name:.0f} %" if deep else str(name) for name in names]

    def values(key: str, factor: float) -> list[list[float | None]]:
        found = [[cells.get((name, length)) for length in columns] for name in names] + [list(lengths)]
        return [[None if cell is None else factor * cell[key] for cell in row] for row in found]

    count = max(row["samples"] for row in grid)
    half = max(max(row["high"] - row["score"], row["score"] - row["low"]) for row in grid)
    ticks = [f"{length:,}" for length in columns]
    found = f"answers found (%), {count} samples a cell, 95 % interval up to ± {100 * half:.0f}"
    panels = [
        HeatPanel(
            title=found, rows=[*rows, "mean"], columns=ticks, values=values("score", 100), low=0, high=100, apart=1
        ),
        HeatPanel(
            title="loss of the expected answer (nats per token)",
            rows=[*rows, "mean"],
            columns=ticks,
            values=values("loss", 1),
            low=0,
            digits=2,
            falling=True,
            apart=1,
        ),
    ]
    down = "depth of the answer in the prompt" if deep else ""
    return draw_heatmaps(panels, title=title, path=path, across="tokens of prompt and answer", down=down)


def draw_position_panel(axes: Any, positions: Rows, context: int) -> None:
    """Mean loss of the tokens at each position of the longest windows; a line marks the trained context."""
    set_heading(axes, "loss by position (nats per token)")
    rows = [row for row in positions if row["loss"] == row["loss"]]
    if not rows:
        label_empty_panel(axes, "no position was measured")
        return
    x, y = [row["position"] for row in rows], [row["loss"] for row in rows]
    axes.axvline(context, color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
    axes.plot(x, y, color=COLOURS[0], marker="o", markersize=4, linewidth=1.5)
    axes.set_xscale("log", base=2)
    ticks = [2**power for power in range(0, max(x).bit_length(), 2)]
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.set_ylim(0, max(y) * 1.1)
    axes.set_xlabel("tokens of context before the prediction")
    axes.text(context, 0.94, "  trained length", transform=axes.get_xaxis_transform(), color=FAINT, fontsize=8)
