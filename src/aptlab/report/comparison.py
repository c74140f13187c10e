"""Groups of runs beside each other: means with intervals, the best one if there is one, and what to doubt."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from aptlab.errors import AptlabError, suggest_option
from aptlab.report.groups import RunGroup, describe_start, group_runs
from aptlab.report.statistics import ConfidenceInterval, compute_interval, compute_paired_interval
from aptlab.report.validation import (
    split_by_validation,
    warn_unequal_data,
    warn_unequal_validation,
    warn_unranked_bits,
)
from aptlab.runs import Result, Run

MULTIPLES = (1, 2, 4, 8)
RISING = ("tasks/acc", "tasks/bwt", "tasks/fwt", "tasks/average_anytime")  # numbers of a scenario: more is better
TOLERANCE = 0.01  # budgets that differ by more are not one budget


@dataclass(frozen=True)
class Metric:
    """A number of a result: how to find it, and whether less of it is better."""

    name: str
    get: Callable[[Result], float | None] = field(compare=False)
    digits: int = 4
    lower: bool = True


def list_metrics(results: Sequence[Result]) -> dict[str, Metric]:
    """Every metric that a comparison can show, by name, in the order of the table."""
    multiples = sorted(
        {row["multiple"] for result in results for row in result.lengths if "multiple" in row} | set(MULTIPLES)
    )
    shown = [
        Metric("val/loss", _stored("val/loss")),
        Metric("val/ppl", _stored("val/ppl"), 3),
        Metric("val/bpb", _stored("val/bpb")),
        *(Metric(f"ppl@{multiple:g}x", _at(multiple, "ppl"), 3) for multiple in multiples),
        Metric("tokens/s", lambda result: result.tokens_per_second, 0, lower=False),
        Metric("parameters", lambda result: result.parameters, 0),
        Metric("skipped", lambda result: result.skipped_steps, 1),
    ]
    known = {metric.name: metric for metric in shown}
    for name in dict.fromkeys(name for result in results for name in result.metrics):
        known.setdefault(name, Metric(name, _stored(name), lower=name not in RISING))
    return known


def find_metric(name: str, results: Sequence[Result]) -> Metric:
    """A metric by name; raises AptlabError with a suggestion."""
    known = list_metrics(results)
    if name not in known:
        raise AptlabError(f"metric={name}: no such number in the results{suggest_option(name, known)}")
    return known[name]


@dataclass(frozen=True)
class Comparison:
    """What `compare` found: one group per row, `columns` of numbers, a verdict and warnings as whole lines."""

    groups: list[RunGroup]
    metric: Metric
    columns: list[Metric]
    cells: list[list[ConfidenceInterval | None]]
    differences: list[ConfidenceInterval | None]
    baseline: int
    best: int | None
    verdict: str
    warnings: list[str]
    notes: list[str]


def compare_runs(
    runs: Sequence[Run], *, metric: str = "val/loss", by: Sequence[str] = (), baseline: str | None = None
) -> Comparison:
    """Group finished runs and measure them against each other.

    `baseline` is part of a row's name (`rope=standard`), or None for the first row. Raises AptlabError if no run is
    finished, or a metric, a key of `by` or the baseline does not exist.
    """
    finished = [run for run in runs if run.result is not None]
    if not finished:
        raise AptlabError("no finished run (one with a result.json) was found; train first, or name another folder")
    groups, notes = group_runs(finished, by)
    results = [result for group in groups for result in group.results]
    main = find_metric(metric, results)
    columns = [item for item in list_metrics(results).values() if item.name == metric or _in_table(item, results)]
    cells = [[compute_interval([item.get(result) for result in group.results]) for item in columns] for group in groups]
    base = _baseline(groups, baseline)
    values = [{seed: main.get(run.result) for seed, run in group.runs.items() if run.result} for group in groups]
    parts = split_by_validation(groups, metric)
    alike = next(part for part in parts if base in part)
    differences = [
        None if i == base or i not in alike else compute_paired_interval(value, values[base])
        for i, value in enumerate(values)
    ]
    best, verdict = rank_parts(
        [group.name for group in groups], [row[columns.index(main)] for row in cells], main, parts
    )
    warnings = [*warn_unequal_budgets(groups), *warn_unequal_data(groups), *warn_unequal_validation(groups)]
    warnings += warn_unranked_bits(groups, metric) if len(parts) > 1 else []
    if starts := warn_unequal_starts(groups):
        best, verdict = None, f"not ranked: {starts}"
        warnings.append("steps, tokens and seconds do not count what trained weights cost before")
    return Comparison(groups, main, columns, cells, differences, base, best, verdict, warnings, notes)


def rank_parts(
    names: Sequence[str],
    intervals: Sequence[ConfidenceInterval | None],
    metric: Metric,
    parts: Sequence[Sequence[int]],
) -> tuple[int | None, str]:
    """The best row of all if they were measured alike; else none, and a sentence for each part with several rows."""
    if len(parts) < 2:
        return pick_best_row(names, intervals, metric)
    said = [f"not ranked: {metric.name} was not measured on the same rows of text"]
    for part in parts:
        if len(part) > 1:
            _, verdict = pick_best_row([names[i] for i in part], [intervals[i] for i in part], metric)
            said.append(f"among {', '.join(names[i] for i in part)}, on the same: {verdict}")
    return None, "; ".join(said)


def pick_best_row(
    names: Sequence[str], intervals: Sequence[ConfidenceInterval | None], metric: Metric
) -> tuple[int | None, str]:
    """The best row if its interval is apart from every other one, and the sentence that says so."""
    known = [(i, found) for i, found in enumerate(intervals) if found is not None]
    if len(known) < 2:
        few = "one row only" if len(names) < 2 else f"fewer than two rows have a finite {metric.name}"
        return None, f"{few}: its numbers stand here, and nothing is ranked"
    order = sorted(known, key=lambda pair: pair[1].mean if metric.lower else -pair[1].mean)
    first, leader = order[0]
    if leader.missing:
        return None, f"{names[first]} has the best mean {metric.name}, but {leader.missing} of its runs diverged"
    close = [i for i, found in order[1:] if leader.overlaps(found)]
    if not close:
        return first, f"best {metric.name}: {names[first]} (its 95 % interval overlaps no other)"
    if any(intervals[i].half is None for i in (first, *close)):  # type: ignore[union-attr]
        return None, f"not separated: {names[first]} leads, but one seed gives no interval; run at least 3 seeds"
    others = ", ".join(names[i] for i in close[:3]) + (f" and {len(close) - 3} more" if len(close) > 3 else "")
    return None, f"not separated: the 95 % interval of {names[first]} overlaps that of {others}"


def warn_unequal_budgets(groups: Sequence[RunGroup]) -> list[str]:
    """A warning for everything that makes the comparison unfair: other steps, tokens, size or context."""
    warnings = []
    checks: list[tuple[str, Callable[[Result], Any]]] = [
        ("steps", lambda result: result.steps),
        ("tokens per step", lambda result: result.tokens / result.steps if result.steps else 0),
        ("parameters", lambda result: result.parameters),
        ("context", lambda result: result.context),
    ]
    for name, get in checks:
        found = [(get(result), group.name) for group in groups for result in group.results]
        low, high = min(found, key=lambda pair: pair[0]), max(found, key=lambda pair: pair[0])
        if high[0] - low[0] > TOLERANCE * high[0]:
            warnings.append(f"not the same budget: {name} {low[0]:,.0f} ({low[1]}) against {high[0]:,.0f} ({high[1]})")
    return warnings


def warn_unequal_starts(groups: Sequence[RunGroup]) -> str | None:
    """What the runs began with, where that differs: nothing (`scratch`), or trained weights by their run and step."""
    starts = dict.fromkeys(describe_start(run) for group in groups for run in group.runs.values())
    return f"the runs did not begin alike: {', '.join(starts)}" if len(starts) > 1 else None


def _baseline(groups: Sequence[RunGroup], name: str | None) -> int:
    if name is None:
        return 0
    words = set(name.replace(",", " ").split())
    found = [i for i, group in enumerate(groups) if words <= set(group.name.split())]
    if len(found) != 1:
        problem = "no row has this" if not found else f"{len(found)} rows have this"
        raise AptlabError(f"baseline={name}: {problem}{suggest_option(name, [group.name for group in groups])}")
    return found[0]


def _in_table(metric: Metric, results: Sequence[Result]) -> bool:
    if metric.name.startswith("train/"):
        return False
    return any(metric.get(result) is not None for result in results)


def _stored(name: str) -> Callable[[Result], float | None]:
    return lambda result: result.metrics.get(name)


def _at(multiple: float, name: str) -> Callable[[Result], float | None]:
    def get(result: Result) -> float | None:
        value = next((row.get(name) for row in result.lengths if row.get("multiple") == multiple), None)
        return None if value is None or not math.isfinite(value) else value

    return get
