"""The bench: each method's rate is tuned, then the grid is trained, one trial after another, kept as they come."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from aptlab.config import compose
from aptlab.errors import ConfigError
from aptlab.runs.journal import Journal
from aptlab.shown import count_nouns
from aptlab.stability.settings import SMALL, StabilitySettings, Trial, list_trials, list_tuning
from aptlab.stability.write import write_report

log = logging.getLogger("aptlab")
Records = dict[str, Mapping[str, Any]]
Train = Callable[[Trial, float], dict[str, Any]]


def run_stability(methods: Sequence[tuple[str, ...]], settings: StabilitySettings, train: Train) -> list[str]:
    """Train what the journal of `settings.out` does not hold yet, write tables and figures; returns what to print.

    Trials are known by their overrides, so the same command goes on, and another one with the same `out` adds methods
    to its tables. `train` is `aptlab.stability.trial.run_trial`.
    """
    folder = Path(settings.out)
    folder.mkdir(parents=True, exist_ok=True)
    journal = Journal(folder / "journal.jsonl", {"bench": "stability"}, afresh="choose another bench.out=…")
    records: Records = {str(record["trial"]): record for record in journal.records}
    end = None if settings.seconds is None else time.monotonic() + settings.seconds
    left = 0
    rates: dict[tuple[str, ...], float | None] = {}
    trials = list(list_trials(methods, settings))
    for method in methods:
        left += run_trials(list_tuning(method, settings), {method: read_rate(method)}, journal, records, end, train)
        rates[method] = None if left else find_tuned_rate(method, settings, records)
    left += len(trials) if left else run_trials(trials, rates, journal, records, end, train)
    lines = write_report(records.values(), folder)
    if left:
        lines.append(f"{count_nouns(left, 'trial')} left; the same command goes on")
    return lines


def run_trials(
    trials: Sequence[Trial],
    rates: Mapping[tuple[str, ...], float | None],
    journal: Journal,
    records: Records,
    end: float | None,
    train: Train,
) -> int:
    """Train those that are not in the journal; returns how many are left when time is up."""
    waiting = [trial for trial in trials if trial.key not in records]
    for number, trial in enumerate(waiting):
        if end is not None and time.monotonic() >= end:
            return len(waiting) - number
        rate = rates[trial.method]
        assert rate is not None
        record = {"trial": trial.key, **describe_trial(trial), **train(trial, rate)}
        journal.append(record)
        records[trial.key] = record
        log.info("%s: loss %s, bad %s", trial.key, record["final"], record["bad"])
    return 0


def describe_trial(trial: Trial) -> dict[str, Any]:
    """Its place in the grid, as plain values."""
    place = {name: getattr(trial, name) for name in ("stress", "precision", "multiple", "seed")}
    return {"method": list(trial.method), **place}


def read_rate(method: tuple[str, ...]) -> float:
    """optim.lr of a method's configuration: what is tuned, and what stands at its multiples."""
    return float(compose("train", [*SMALL, *method]).cfg.optim.lr)


def find_tuned_rate(method: tuple[str, ...], settings: StabilitySettings, records: Records) -> float:
    """The rate of the tuning trial with the smallest loss. ConfigError where none of them came to its end."""
    tried = [records[trial.key] for trial in list_tuning(method, settings)]
    ended = [record for record in tried if record["final"] is not None]
    if not ended:
        raise ConfigError(
            f"bench.tune={list(settings.tune)}: no rate of {' '.join(method) or 'the default'} came to its end; "
            "tune at smaller ones, as with bench.tune=0.03,0.1,0.3"
        )
    return float(min(ended, key=lambda record: record["final"])["rate"])
