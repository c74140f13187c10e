"""Measure, draw, write and print what a plot request asks for."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from aptlab.errors import AptlabError, ConfigError
from aptlab.report.positions import ANALYSES, AnalysisSettings, split_rotary_parts
from aptlab.report.positions.facts import format_facts, summarize_rules
from aptlab.report.positions.lines import format_curves_csv, join_names
from aptlab.report.positions.request import PlotRequest
from aptlab.restore.rope import warn_of_rope
from aptlab.runs.atomic import write_text


def plot_analyses(request: PlotRequest) -> list[Path]:
    """Write one PNG and its CSV files per analysis into the folder; print the facts. Returns the paths."""
    setting = AnalysisSettings(
        length=request.length,
        original=request.original,
        head_dim=request.head_dim,
        heads=request.heads,
        bases=request.bases,
        seed=request.seed,
    )
    rules = [
        (rule, split_rotary_parts(name, rule, setting, number=number))
        for number, (name, rule) in enumerate(request.rules)
    ]
    print(format_facts(summarize_rules(rules, setting), setting), flush=True)
    for name, rule in request.rules:
        for notice in warn_of_rope(rule, head_dim=setting.head_dim, length=setting.length):
            print(f"warning: {notice}" + (f" [{name}]" if " " in name else ""))
    for note in request.notes:
        print(f"note: {note}")
    folder = _folder(request.out)
    parts = [turning for _, found in rules for turning in found]
    names = join_names((name for name, _ in request.rules), most=6)
    written: list[Path] = []
    for name in request.what:
        try:
            found = _analyse(name, parts, setting, names=names, folder=folder)
        except ConfigError as error:
            if request.chosen:
                raise
            print(f"left out: {error}")
            continue
        written += found
        print(f"written {' '.join(map(str, found))}", flush=True)
    return written


def _analyse(name: str, parts: list, setting: AnalysisSettings, *, names: str, folder: Path) -> list[Path]:
    analysis = ANALYSES[name]
    tables = analysis.compute_tables(parts, setting)
    title = analysis.TITLE.format(names)
    written = [analysis.draw_figure(tables, parts, setting, title=title, path=folder / f"{name}.png")]
    for table, lines in tables.items():
        path = folder / (f"{name}_{table}.csv" if table else f"{name}.csv")
        write_text(path, format_curves_csv(lines))
        written.append(path)
    return written


def _folder(out: str | None) -> Path:
    """The folder to write into, made where it is missing."""
    folder = Path(out).expanduser() if out else Path("outputs") / "plot" / f"{datetime.now():%Y-%m-%d-%H%M%S}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AptlabError(f"out={folder}: {error.strerror or error}; choose another folder") from error
    return folder
