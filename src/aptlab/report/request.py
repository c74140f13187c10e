"""Which runs to compare and where the table goes, and the comparison from folders to files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from aptlab.errors import AptlabError


@dataclass(frozen=True)
class CompareRequest:
    """What to compare and where to write; `out` None is the folder itself if there is one, else a new one."""

    folders: tuple[str, ...]
    metric: str = "val/loss"
    by: tuple[str, ...] = ()
    baseline: str | None = None
    out: str | None = None


def report_comparison(request: CompareRequest, out: str | Path) -> list[str]:
    """Compare, write the files, and return the lines to print. Raises AptlabError if no run is finished."""
    from aptlab.report.comparison import compare_runs
    from aptlab.report.write import format_comparison, write_comparison
    from aptlab.runs import find_runs

    runs = find_runs(request.folders)
    unfinished = [run for run in runs if not run.finished]
    lines = []
    if unfinished:
        names = ", ".join(run.name for run in unfinished[:5]) + (" …" if len(unfinished) > 5 else "")
        lines.append(f"left out, not finished: {len(unfinished)} of {len(runs)} ({names})")
    try:
        comparison = compare_runs(runs, metric=request.metric, by=request.by, baseline=request.baseline)
    except AptlabError as error:
        raise AptlabError("\n".join([str(error), *lines])) from None
    write_comparison(comparison, out)
    return [format_comparison(comparison), *lines, f"written {out}: table.csv table.md table.txt figure.png"]
