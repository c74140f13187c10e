"""Every combination of the values given."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aptlab.errors import ConfigError
from aptlab.runs import Result
from aptlab.sweep.job import JobCommand, SweepJob, make_safe_name, make_sweep_name

if TYPE_CHECKING:
    from aptlab.sweep.request import Compose
    from aptlab.sweep.runner import SweepRun


@dataclass(frozen=True)
class Grid:
    """A sweep over a list of jobs that is known from the start.

    `name` null names the folder after the jobs, so that the same command continues; `fresh` starts another folder;
    `retry_failed` runs failed jobs again when the sweep is continued.
    """

    name: str | None = None
    fresh: bool = False
    retry_failed: bool = True

    def __post_init__(self) -> None:
        check_sweep_name(self.name)

    def plan(self, overrides: Sequence[str], compose: Compose) -> GridWork:
        """All jobs, checked; ConfigError with every problem of every job."""
        from aptlab.config.sweeps import expand_grid
        from aptlab.sweep.request import check_jobs

        jobs, first = check_jobs(expand_grid(overrides), compose)
        return GridWork(self.name or make_sweep_name(job.key for job in jobs), first, tuple(jobs))


@dataclass(frozen=True)
class GridWork:
    """A checked grid: its name, the configuration of its first job, and all jobs."""

    name: str
    config: Any
    jobs: tuple[SweepJob, ...]
    kind = "grid"
    metric = "val/loss"

    def open(self, session: SweepRun) -> None:
        """Number the jobs and find out which of them are left."""
        session.take(session.folder.number(self.jobs))
        session.total = len(session.jobs)

    def tasks(self, session: SweepRun) -> Iterator[JobCommand]:
        """The jobs that are left, in order, until the sweep is interrupted."""
        for job in session.todo:
            if session.interrupted:
                return
            yield session.task(job)

    def told(self, session: SweepRun, job: SweepJob, result: Result | None) -> None:
        """A grid learns nothing from a result."""

    def closing(self, session: SweepRun) -> list[str]:
        """Lines to print after the table: none."""
        return []


def check_sweep_name(name: str | None) -> None:
    """Raises ConfigError if a sweep's name cannot be the name of a folder."""
    if name is not None and make_safe_name(name) != name:
        raise ConfigError(f"name={name} must be the name of one folder, for example {make_safe_name(name)}")
