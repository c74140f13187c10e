"""Every combination of the values given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from aptlab.config.sweeps import expand_grid
from aptlab.runs import Result
from aptlab.sweep.check_jobs import check_jobs
from aptlab.sweep.job import SweepJob, make_sweep_name
from aptlab.sweep.plan import ComposeJob, SweepPlan, SweepRule, SweepState, check_sweep_name


@dataclass(frozen=True)
class Grid(SweepRule):
    """A sweep over a list of jobs that is known from the start.

    `name` null names the folder after the jobs, so that the same command continues; `fresh` starts another folder;
    `retry_failed` runs failed jobs again when the sweep is continued.
    """

    name: str | None = None
    fresh: bool = False
    retry_failed: bool = True

    def __post_init__(self) -> None:
        check_sweep_name(self.name)

    def make_plan(self, overrides: Sequence[str], compose: ComposeJob) -> GridPlan:
        """See SweepRule."""
        jobs, first = check_jobs(expand_grid(overrides), compose)
        return GridPlan(self, self.name or make_sweep_name(job.key for job in jobs), first, jobs)


class GridPlan(SweepPlan):
    """The jobs of a grid, in order. It learns nothing from a result."""

    kind = "grid"
    metric = "val/loss"

    def __init__(self, rule: Grid, name: str, config: Any, jobs: Sequence[SweepJob]) -> None:
        self.name, self.config, self._jobs = name, config, tuple(jobs)
        self.fresh, self.retry_failed, self._named = rule.fresh, rule.retry_failed, rule.name is not None

    def list_jobs(self) -> Sequence[SweepJob]:
        """See SweepPlan."""
        return self._jobs

    def find_earlier_name(self, root: str) -> str | None:
        """See SweepPlan."""
        return None if self._named else make_sweep_name(job.make_earlier_key(root) for job in self._jobs)

    def open_jobs(self, folder: Path, numbers: Mapping[str, int]) -> list[SweepJob]:
        """All jobs with the numbers that they have in this folder; new ones come after those that are there."""
        used = dict(numbers)
        free = max(used.values(), default=-1) + 1
        for job in self._jobs:
            if job.key not in used:
                used[job.key] = free
                free += 1
        return [replace(job, index=used[job.key]) for job in self._jobs]

    def count_jobs(self, state: SweepState) -> int:
        """See SweepPlan."""
        return len(state.jobs)

    def next_jobs(self, state: SweepState) -> Iterator[SweepJob]:
        """The jobs that are left, in order."""
        yield from state.pending

    def record_result(self, job: SweepJob, result: Result | None) -> None:
        """See SweepPlan."""

    def describe_best(self) -> list[str]:
        """None: the table has a verdict of its own."""
        return []
