"""`aptlab compare DIR… [metric=val/loss] [by=rope,smooth] [baseline=rope=standard] [out=folder]`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from aptlab.errors import ConfigError, suggest_option
from aptlab.shown import print_drawn

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
    from aptlab.report.write import report_comparison

    out = request.out or _choose_folder(request.folders)
    lines = report_comparison(request.folders, out, metric=request.metric, by=request.by, baseline=request.baseline)
    print_drawn("\n".join(lines))
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


def _choose_folder(folders: Sequence[str]) -> Path:
    """The folder that holds the runs if it is one, else a new one."""
    if len(folders) == 1 and Path(folders[0]).is_dir() and not (Path(folders[0]) / "result.json").exists():
        return Path(folders[0])
    return Path("outputs") / "compare" / f"{datetime.now():%Y-%m-%d-%H%M%S}"
