"""How answers in long prompts are shown: a table, two CSV files and a heat map."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from aptlab.evals.base import Row
from aptlab.report.heatmap import HeatPanel, draw_heatmaps
from aptlab.report.table import format_number, render_table
from aptlab.shown import count_nouns, show_csv_cell

SAMPLE = ("task", "length", "asked_depth", "index", "depth", "score", "token_accuracy", "loss", "tokens")
CELL = ("task", "length", "depth", "samples", "score", "low", "high", "token_accuracy", "loss")
NOTE = (
    "score: share of the answers found in the greedy text; tokens right and loss (nats per token): of the expected "
    "answer, given its beginning; intervals: Wilson, 95 %"
)


def format_samples_csv(rows: Sequence[Row]) -> str:
    """One line per sample; answers are separated by spaces."""
    plain = [{**row, "answers": " ".join(row["answers"])} for row in rows]
    return format_table_csv((*SAMPLE, "answers", "generated"), plain)


def format_cells_csv(grid: Sequence[Row]) -> str:
    """One line per task, length and depth."""
    return format_table_csv(CELL, grid)


def format_table_csv(columns: Sequence[str], rows: Sequence[Row]) -> str:
    """A CSV file in full precision; empty where there is no value; no text is a formula."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([["" if row[name] is None else show_csv_cell(row[name]) for name in columns] for row in rows])
    return out.getvalue()


def format_retrieval_table(grid: Sequence[Row], means: Sequence[Row], name: str, context: int) -> str:
    """Score in percent by task (or depth) and length, then the means of each length."""
    lengths = [row["length"] for row in means]
    cells = {(format_row_label(row), row["length"]): row for row in grid}
    names = list(dict.fromkeys(format_row_label(row) for row in grid))
    body = [[label, *(format_score_interval(cells.get((label, length))) for length in lengths)] for label in names]
    body += [
        ["all", *(format_score_interval(row) for row in means)],
        ["tokens right", *(f"{100 * row['token_accuracy']:.1f}" for row in means)],
        ["loss", *(format_number(row["loss"], 3) for row in means)],
    ]
    head = ["task" if len(grid) and grid[0]["depth"] is None else "depth", *(f"{n:,}" for n in lengths)]
    title = f"{name}: percent of answers found, by length in tokens (trained at {context:,})"
    return f"{render_table(head, body, title=title, bold=[len(names)])}\nnote: {NOTE}"


def format_row_label(row: Row) -> str:
    """What a row of the table is about: its depth where the task has depths, else its task."""
    return row["task"] if row["depth"] is None else f"{100 * row['depth']:.0f} %"


def format_score_interval(row: Row | None) -> str:
    """Score and interval, `62 (47-75)`."""
    if row is None:
        return "-"
    return f"{100 * row['score']:.0f} ({100 * row['low']:.0f}-{100 * row['high']:.0f})"


def draw_retrieval_heatmap(grid: Sequence[Row], lengths: Sequence[Row], path: Path, *, title: str) -> Path:
    """Share of answers found, and loss of the expected answers; rows are depths or tasks."""
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
    found = f"answers found (%), {count_nouns(count, 'sample')} a cell, 95 % interval up to ± {100 * half:.0f}"
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
