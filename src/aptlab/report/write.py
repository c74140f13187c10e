"""A comparison as text for people, Markdown for a page, and CSV with every digit."""

from __future__ import annotations

import csv
import io
import re
import shutil
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from aptlab.checkpoint.find import is_imported
from aptlab.errors import AptlabError
from aptlab.report.comparison import Comparison, compare_runs
from aptlab.report.curves import draw_comparison
from aptlab.report.statistics import ConfidenceInterval
from aptlab.report.table import format_number, render_markdown_table, render_table
from aptlab.runs import Run, find_runs
from aptlab.runs.atomic import write_text
from aptlab.shown import show_csv_cell, show_line, show_markdown

WIDTH = 120  # of table.txt, and of a screen that has no width


def report_comparison(
    folders: Sequence[str | Path],
    out: str | Path,
    *,
    metric: str = "val/loss",
    by: Sequence[str] = (),
    baseline: str | None = None,
) -> list[str]:
    """Compare the runs in these folders, write the files into `out`, and return the lines to print.

    Raises AptlabError if no run is finished; it names those that are not, and models that were imported.
    """
    runs = find_runs(folders)
    lines = describe_left_out(runs)
    try:
        comparison = compare_runs(runs, metric=metric, by=by, baseline=baseline)
    except AptlabError as error:
        raise AptlabError("\n".join([str(error), *lines])) from None
    write_comparison(comparison, out)
    return [format_comparison(comparison), *lines, f"written {show_line(out)}: table.csv table.md table.txt figure.png"]


def describe_left_out(runs: Sequence[Run]) -> list[str]:
    """A line for the runs that are not finished, and one for the imported models, which no training made."""
    without = [run for run in runs if not run.finished]
    imported = [run for run in without if is_imported(run.path)]
    kinds = {"not finished": [run for run in without if run not in imported], "imported": imported}
    lines = []
    for kind, found in kinds.items():
        names = ", ".join(show_line(run.name) for run in found[:5]) + (" …" if len(found) > 5 else "")
        lines += [f"left out, {kind}: {len(found)} of {len(runs)} ({names})"] if found else []
    return lines


def format_comparison(comparison: Comparison, *, terminal: bool | None = None) -> str:
    """The table and its lines of explanation, no line wider than the terminal, or than `WIDTH` elsewhere.

    Columns that do not fit come in tables below each other; long settings stand below them, by the number of the row.
    """
    head, rows, left = build_comparison_cells(comparison)
    bold = [] if comparison.best is None else [comparison.best]
    terminal = sys.stdout.isatty() if terminal is None else terminal
    width = shutil.get_terminal_size().columns if terminal else WIDTH
    remarks, legend = list_remarks(comparison), []
    if sum(max(len(line[i]) for line in [head, *rows]) + 2 for i in range(left)) > width // 2:
        legend = [f"row {i + 1}  {group.name}" for i, group in enumerate(comparison.groups)]
        remarks = [name_rows(line, comparison) for line in remarks]
        head = ["row", *head[left:]]
        rows = [[f"{i + 1}{' *' * (i == comparison.best)}", *row[left:]] for i, row in enumerate(rows)]
        left = 1
    tables = [
        render_table(
            [head[i] for i in part], [[row[i] for i in part] for row in rows], left=left, terminal=terminal, bold=bold
        )
        for part in _parts(head, rows, left, width)
    ]
    return "\n".join([*tables, "", *(fold_line(show_line(line), width) for line in [*legend, *remarks])])


def name_rows(line: str, comparison: Comparison) -> str:
    """A remark that names rows by their number in place of all their settings; those of a text stay, before its `[`."""
    names = [group.name for group in comparison.groups]
    for i in sorted(range(len(names)), key=lambda i: -len(names[i])):
        line = re.sub(re.escape(names[i]) + r"(?! \[)", f"row {i + 1}", line)
    return line


def fold_line(line: str, width: int) -> str:
    """A line in as many as it takes, those after the first indented; a word that is too long stays whole."""
    return textwrap.fill(line, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False) or line


def _parts(head: list[str], rows: list[list[str]], left: int, width: int) -> list[list[int]]:
    """Columns of each table: as many as fit into a terminal, the text columns and n in all of them."""
    widths = [max(len(line[i]) for line in [head, *rows]) + 2 for i in range(len(head))]
    fixed = list(range(left + 1))
    parts, used = [list(fixed)], sum(widths[i] for i in fixed)
    for i in range(left + 1, len(head)):
        if used + widths[i] > width - 2 and len(parts[-1]) > len(fixed):
            parts.append(list(fixed))
            used = sum(widths[j] for j in fixed)
        parts[-1].append(i)
        used += widths[i]
    return parts


def write_comparison(comparison: Comparison, folder: str | Path) -> list[Path]:
    """Write table.txt, table.md, table.csv and figure.png; returns their paths."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    head, rows, left = build_comparison_cells(comparison)
    page = (
        render_markdown_table(head, rows, left=left)
        + "\n"
        + "\n".join(f"- {show_markdown(line)}" for line in list_remarks(comparison))
        + "\n"
    )
    for name, content in (
        ("table.txt", format_comparison(comparison, terminal=False) + "\n"),
        ("table.md", page),
        ("table.csv", format_comparison_csv(comparison)),
    ):
        write_text(folder / name, content)
    figure = draw_comparison(comparison, folder / "figure.png")
    return [folder / "table.txt", folder / "table.md", folder / "table.csv", figure]


def shows_differences(comparison: Comparison) -> bool:
    """Whether any row can be set against the baseline."""
    return any(found is not None for found in comparison.differences)


def build_comparison_cells(comparison: Comparison) -> tuple[list[str], list[list[str]], int]:
    """Head, rows and the number of text columns of the table that people read."""
    labels = list(comparison.groups[0].labels) or ["runs"]
    delta = [f"d {comparison.metric.name}"] if shows_differences(comparison) else []
    head = [*labels, "n", *(metric.name for metric in comparison.columns), *delta]
    rows = []
    for i, group in enumerate(comparison.groups):
        names = list(group.shown.values()) or [group.name]
        if i == comparison.best:
            names[0] += " *"
        values = [format_interval(cell, m.digits) for cell, m in zip(comparison.cells[i], comparison.columns)]
        rows.append([*names, f"n={len(group.runs)}", *values])
        if delta:
            rows[-1].append(
                "baseline" if i == comparison.baseline else format_interval(comparison.differences[i], 4, sign=True)
            )
    return head, rows, len(labels)


def format_interval(found: ConfidenceInterval | None, digits: int = 4, *, sign: bool = False) -> str:
    """`1.5321 ± 0.0040`, `1.5321` for one seed, `… (2 of 3)` where runs diverged."""
    if found is None:
        return "-"
    count = digits <= 1 and not found.half and found.mean == int(found.mean)
    mean = format_number(found.mean, 0 if count else digits)
    if sign and found.mean > 0:
        mean = f"+{mean}"
    total = found.n + found.missing
    tail = f" ({found.n} of {total})" if found.missing else ""
    if found.half is None:
        return f"{mean}{tail}"
    return f"{mean}{tail}" if count else f"{mean} ± {format_number(found.half, digits)}{tail}"


def list_remarks(comparison: Comparison) -> list[str]:
    """The lines under the table: verdict, meaning of the columns, warnings, notes."""
    base = comparison.groups[comparison.baseline].name
    lines = [comparison.verdict]
    lines.append("mean ± 95 % interval over seeds (Student t); n=1: one seed, no interval")
    if shows_differences(comparison):
        name = comparison.metric.name
        lines.append(f"d {name}: mean difference from {base} over the seeds both have, ± 95 % (paired t)")
    lines += [f"warning: {line}" for line in comparison.warnings]
    return lines + [f"note: {line}" for line in comparison.notes]


def format_comparison_csv(comparison: Comparison) -> str:
    """One row per group; per metric its mean, half width and count in full precision, empty where unknown."""
    labels = list(comparison.groups[0].labels)
    names = [*(metric.name for metric in comparison.columns), f"d {comparison.metric.name}"]
    head = [*labels, "seeds", *(f"{name}{part}" for name in names for part in ("", " ±95%", " n"))]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*map(show_csv_cell, head)])
    for i, group in enumerate(comparison.groups):
        found = [*comparison.cells[i], comparison.differences[i]]
        seeds = " ".join(str(seed) for seed in sorted(group.runs))
        writer.writerow(
            [*map(show_csv_cell, group.labels.values()), seeds, *(part for cell in found for part in _full(cell))]
        )
    return out.getvalue()


def _full(found: ConfidenceInterval | None) -> Sequence[str]:
    if found is None:
        return ("", "", "0")
    return (repr(found.mean), "" if found.half is None else repr(found.half), str(found.n))
