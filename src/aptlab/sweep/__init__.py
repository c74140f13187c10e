"""`aptlab train -m …`: many trainings, each in its own process, continued by repeating the command.

outputs/<job>/sweeps/<name>/ holds sweep.yaml (jobs and command), journal.jsonl (what happened), jobs/<number>-<what
differs>/ (one run folder each), and at the end table.{txt,md,csv} and figure.png as `aptlab compare` writes them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from aptlab.sweep.grid import Grid
from aptlab.sweep.optuna_search import OptunaSearch

__all__ = ["Grid", "OptunaSearch", "run"]


def run(
    args: list[str], *, command: Sequence[str] | None = None, compose: Callable[[list[str]], Any] | None = None
) -> int:
    """Plan, check every job, run them; returns 0, 1 (a job failed), or 128 + signal (interrupted).

    `command` and `compose` replace `python -m aptlab train` and the check of a job's configuration, for tests.
    Raises AptlabError before anything is run or written if the sweep or any job of it is wrong.
    """
    from aptlab.sweep.request import plan_sweep
    from aptlab.sweep.runner import run_sweep

    return run_sweep(plan_sweep(args, compose=compose), command=command)
