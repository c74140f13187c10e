"""What a sweep does next: an abstract plan that yields jobs and is told results, and the state that it reads."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from aptlab.errors import ConfigError
from aptlab.runs import Result
from aptlab.sweep.job import SweepJob, make_safe_name

ComposeJob = Callable[[list[str]], Any]  # overrides of one job -> its checked configuration; AptlabError if it is wrong


@dataclass
class SweepState:
    """The jobs of one invocation and what became of them, by index. The runner writes it, a plan reads it.

    pending  jobs that were known at the start and have no result yet, in order
    """

    jobs: dict[int, SweepJob] = field(default_factory=dict)
    pending: list[SweepJob] = field(default_factory=list)
    results: dict[int, Result] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)


class SweepPlan(abc.ABC):
    """A checked sweep: `config` is that of its first job, `name` that of its folder, `metric` what its table is about.

    The runner calls `open_jobs` once, `record_result` for every job that has ended, now or earlier, and takes one job
    after the other from `next_jobs`, each only when there is room for it.
    """

    kind: ClassVar[str]
    name: str
    config: Any
    metric: str
    fresh: bool
    retry_failed: bool

    def list_jobs(self) -> Sequence[SweepJob]:
        """The jobs that are known before there is a folder."""
        return ()

    def find_earlier_name(self, root: str) -> str | None:
        """The name that earlier versions gave to this sweep, where `root` was the override of `paths.root`.

        None where the name is the user's.
        """
        del root
        return None

    @abc.abstractmethod
    def open_jobs(self, folder: Path, numbers: Mapping[str, int]) -> list[SweepJob]:
        """The jobs that are known before any is run, each with its number; `numbers` are those in use, by job key."""

    @abc.abstractmethod
    def count_jobs(self, state: SweepState) -> int:
        """How many jobs the sweep has, those of earlier invocations among them; asked before the first is run."""

    @abc.abstractmethod
    def next_jobs(self, state: SweepState) -> Iterator[SweepJob]:
        """The jobs to run, some of which may be thought of only when they are taken."""

    @abc.abstractmethod
    def record_result(self, job: SweepJob, result: Result | None) -> None:
        """Learn from a job's end; None: it failed. Harmless when repeated."""

    @abc.abstractmethod
    def describe_best(self) -> list[str]:
        """Lines to print below the table."""


class SweepRule(abc.ABC):
    """An option of the group `sweep`: which jobs some overrides mean."""

    @abc.abstractmethod
    def make_plan(self, overrides: Sequence[str], compose: ComposeJob) -> SweepPlan:
        """The plan of these overrides, checked; ConfigError with every problem of every job."""


def check_sweep_name(name: str | None) -> None:
    """Raises ConfigError if a sweep's name cannot be the name of a folder."""
    if name is not None and make_safe_name(name) != name:
        raise ConfigError(f"name={name} must be the name of one folder, for example {make_safe_name(name)}")
