"""`aptlab compare DIR… [metric=val/loss] [by=rope,smooth] [baseline=rope=standard] [out=folder]`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from aptlab.errors import AptlabError, ConfigError, suggest_option

OPTIONS = ("metric", "by", "baseline", "out")


@dataclass(frozen=True)
class CompareRequest:
    """What to compare and where to write; `out` None is the folder itself if there is one, else a new one."""

    folders: tuple[str, ...]
    metric: str = "val/loss"
    by: tuple[str, ...] = ()
    baseline: str | None = None
    out: str | None = None


def run(args: list[str]) -> int:
    """Print the table and write table.csv, table.md, table.txt and figure.png; no torch is imported."""
    request = parse_compare_request(args)
    out = request.out or _out(request.folders)
    for line in report_comparison(request, out):
        print(line)
    return 0


def parse_compare_request(args: Sequence[str]) -> CompareRequest:
    """Folders and options; a folder may hold `=` in its name. Raises ConfigError with a suggestion."""
    folders, options, problems = [], {}, []
    for arg in args:
        key, sign, value = arg.partition("=")
        if sign and key in OPTIONS:
            options[key] = value
        elif sign and "/" not in key and not os.path.exists(arg):
            problems.append(f"{arg}: compare has no option {key}{suggest_option(key, OPTIONS)}")
        else:
            folders.append(arg)
    if not folders and not problems:
        problems.append("compare needs at least one folder of runs, for example: aptlab compare outputs/train")
    if problems:
        raise ConfigError("\n".join(problems))
    by = tuple(word for word in options.pop("by", "").split(",") if word)
    return CompareRequest(tuple(folders), by=by, **{key: value for key, value in options.items() if value})


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


def _out(folders: Sequence[str]) -> Path:
    if len(folders) == 1 and Path(folders[0]).is_dir() and not (Path(folders[0]) / "result.json").exists():
        return Path(folders[0])
    return Path("outputs") / "compare" / f"{datetime.now():%Y-%m-%d-%H%M%S}"
