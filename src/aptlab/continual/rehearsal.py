"""How a run rehearses: which samples it keeps, how many of a batch are old ones, and when. No torch, no numpy."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

from aptlab.continual.policies import Policy
from aptlab.errors import ConfigError
from aptlab.limits import OpenFraction, PositiveInt, validate_limits

SHARE = 0.5  # of the machine's memory that a buffer may take


@dataclass(frozen=True, kw_only=True)
class ShareSchedule(ABC):
    """How many rows from memory join a batch of new ones.

    counts_tasks  whether the share depends on how many tasks there were
    """

    counts_tasks: ClassVar[bool] = False

    @abstractmethod
    def find_share(self, *, step: int, task: int) -> float:
        """The share of the whole batch, in [0, 1), at optimizer step `step` (from 0) of task `task` (from 0)."""

    def count_rows(self, batch: int, *, step: int, task: int) -> int:
        """Rows from memory beside `batch` new ones: share / (1 - share) of these, rounded."""
        share = self.find_share(step=step, task=task)
        return round(batch * share / (1 - share))


@dataclass(frozen=True, kw_only=True)
class ConstantShare(ShareSchedule):
    """The same share at every `every`-th step, and none at the others.

    fraction  of the whole batch; 0.5 is as many old rows as new ones, as experience replay has it
    """

    fraction: OpenFraction = 0.5
    every: PositiveInt = 1

    def __post_init__(self) -> None:
        validate_limits(self)

    def find_share(self, *, step: int, task: int) -> float:
        del task
        return self.fraction if step % self.every == 0 else 0.0


@dataclass(frozen=True, kw_only=True)
class BalancedShare(ShareSchedule):
    """k / (k + 1) in task k (from 0), at most `most`: every task that was seen has the same part of a batch."""

    counts_tasks: ClassVar[bool] = True

    most: OpenFraction = 0.75

    def __post_init__(self) -> None:
        validate_limits(self)

    def find_share(self, *, step: int, task: int) -> float:
        del step
        return min(task / (task + 1), self.most)


@dataclass(frozen=True, kw_only=True)
class Replay(ABC):
    """An option of the group `replay`."""

    @abstractmethod
    def check_memory(self, sample_bytes: int) -> int:
        """Bytes that are kept where a sample takes `sample_bytes`; ConfigError where that is too much."""


@dataclass(frozen=True, kw_only=True)
class NoReplay(Replay):
    """Nothing is remembered but by the weights."""

    def check_memory(self, sample_bytes: int) -> int:
        del sample_bytes
        return 0


@dataclass(frozen=True, kw_only=True)
class Rehearsal(Replay):
    """Keep samples of the stream and train on some of them beside each new batch.

    policy     which samples are kept
    capacity   how many, on all ranks together: every rank has the same ones
    schedule   how many of a batch are old ones
    update     step: samples may be kept as soon as they were trained on; task: at the end of their task
    max_bytes  memory that the buffer may take; None: half of what the machine has
    seed       of what is kept and drawn
    """

    policy: Policy
    capacity: PositiveInt = 500
    schedule: ShareSchedule
    update: Literal["step", "task"] = "step"
    max_bytes: PositiveInt | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        validate_limits(self)
        if self.policy.needs_features and self.update == "step":
            raise ConfigError(
                f"update=step: {type(self.policy).__name__} chooses among all samples of a task; set update=task"
            )

    def check_memory(self, sample_bytes: int) -> int:
        """Bytes of the full buffer; ConfigError where that is more than `max_bytes`."""
        needed, most = self.capacity * sample_bytes, self.max_bytes or int(SHARE * measure_machine_memory())
        if needed > most:
            limit = "max_bytes" if self.max_bytes else f"{SHARE:.0%} of this machine's memory"
            raise ConfigError(
                f"capacity={self.capacity} takes {format_bytes(needed)}, {sample_bytes:,} bytes a sample, and {limit} "
                f"is {format_bytes(most)}; use at most capacity={most // sample_bytes}, or set max_bytes={needed}"
            )
        return needed


def measure_machine_memory() -> int:
    """Bytes of memory that this machine has, or that its control group allows."""
    sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            with open(path) as file:
                text = file.read().strip()
        except OSError:
            continue
        sizes += [int(text)] if text.isdigit() else []
    return min(sizes)


def format_bytes(count: int) -> str:
    """A number of bytes for a message.

    >>> format_bytes(1_500_000)
    '1.5 MB'
    """
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count} bytes"
