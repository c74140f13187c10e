"""Which task is trained on at which micro-batch: a pure function of its number."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass

from aptlab.errors import ConfigError


@dataclass(frozen=True)
class TaskClock:
    """Task k is trained on from optimizer step ends[k-1] (0 for the first) up to ends[k]; the last one for ever.

    accumulate  micro-batches of an optimizer step
    """

    ends: tuple[int, ...]
    accumulate: int = 1

    def find_task(self, micro_batch: int) -> int:
        """The task of a micro-batch."""
        return min(bisect.bisect_right(self.ends, micro_batch // self.accumulate), len(self.ends) - 1)

    def get_start(self, task: int) -> int:
        """The first micro-batch of a task."""
        return self.ends[task - 1] * self.accumulate if task else 0

    def find_ended(self, step: int) -> int | None:
        """The task that ends with optimizer step `step` (1-based), or None."""
        return self.ends.index(step) if step in self.ends else None


def plan_task_ends(steps: Sequence[int] | int | None, names: Sequence[str], *, total: int) -> tuple[int, ...]:
    """The step at which each task ends, the last one's `total`. Raises ConfigError where a task has no step left."""
    tasks = len(names)
    if steps is None:
        ends = [total * (task + 1) // tasks for task in range(tasks)]
        if total < tasks:
            raise ConfigError(f"trainer.max_steps={total} is no step for each of {tasks} tasks; use more steps")
        return tuple(ends)
    each = [steps] * tasks if isinstance(steps, int) else list(steps)
    ends = [sum(each[: task + 1]) for task in range(tasks)]
    if total < ends[-1]:
        raise ConfigError(
            f"scenario.steps={steps} takes {ends[-1]} steps for {tasks} tasks, and trainer.max_steps={total}; set "
            f"trainer.max_steps={ends[-1]}, or fewer steps for each"
        )
    return (*ends[:-1], total)
