"""The picture of an evaluation: loss by position, and perplexity by length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aptlab.report.figure import length_panel
from aptlab.report.style import COLOURS, FAINT, empty, heading, save, two_panels

Rows = Sequence[Mapping[str, Any]]


def draw(lengths: Rows, positions: Rows, *, title: str, path: Path, context: int) -> Path:
    """Write figure.png; raises AptlabError if the file cannot be written."""
    figure, left, right = two_panels(title)
    position_panel(left, positions, context)
    length_panel(right, lengths, context)
    return save(figure, path)


def position_panel(axes: Any, positions: Rows, context: int) -> None:
    """Mean loss of the tokens at each position of the longest windows; a line marks the trained context."""
    heading(axes, "loss by position (nats per token)")
    rows = [row for row in positions if row["loss"] == row["loss"]]
    if not rows:
        empty(axes, "no position was measured")
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
