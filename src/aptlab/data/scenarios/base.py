"""What every scenario says: how long each task is trained, and whether the learner is told where one ends."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from aptlab.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Scenario(ABC):
    """Tasks in a fixed order.

    steps       optimizer steps of each task; one number for all, or one for each. None: equal parts of the run. The
                last task goes on to the end of the run
    joint       rows of all tasks, mixed, at every step: what a model reaches that need not remember (an upper bound);
                measured at the same steps
    boundaries  known: methods may act where a task ends; hidden: only the measurement knows
    """

    steps: Sequence[int] | int | None = None
    joint: bool = False
    boundaries: Literal["known", "hidden"] = "known"

    def __post_init__(self) -> None:
        each = [self.steps] if isinstance(self.steps, int) else list(self.steps or ())
        if any(steps < 1 for steps in each):
            raise ConfigError(f"steps={self.steps}: every task takes at least 1 step; null shares out the run")
        if isinstance(self.steps, Sequence) and len(each) != len(self.names):
            raise ConfigError(
                f"steps={list(self.steps)} has {len(each)} numbers for {len(self.names)} tasks "
                f"({', '.join(self.names)}); give one for each, or a single number"
            )

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """The tasks, in their order."""


@dataclass(frozen=True, kw_only=True)
class NoScenario(Scenario):
    """One task: the whole run."""

    @property
    def names(self) -> tuple[str, ...]:
        return ("all",)
