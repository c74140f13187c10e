"""Whether an optimizer can go on with the state of an older run, and at which learning rate it does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from aptlab.errors import CheckpointError
from aptlab.optim.probe import copy_corners, find_state_problem
from aptlab.tasks import Task
from aptlab.training.state import ResumePoint

NOTICED = 0.01  # share of the larger rate


def check_optimizer_state(
    task: Task, saved: Mapping[str, Any], resume: ResumePoint, *, unscaled: bool, device: str | torch.device
) -> None:
    """CheckpointError where the state of the run's optimizer has another form than that of this configuration.

    A run that was stopped before its first step has no state yet.
    """
    states = saved.get("optimizer_states") or []
    if resume.step < 1 or not states:
        return
    problem = find_state_problem(task.optim, task.net, states[0], unscaled=unscaled, device=device)
    if problem:
        raise CheckpointError(
            f"optim: the optimizer's state in {resume.path} cannot be continued: {problem}; resume with the optimizer "
            "that the run had, or start a new run from its weights with load=weights"
        )


def describe_rate_change(task: Task, saved: Mapping[str, Any], *, step: int, total: int) -> str | None:
    """One line where the next step's learning rate is another one than the older run would have taken it with.

    step   optimizer steps taken
    total  steps of the run as it is asked for now
    """
    states = saved.get("optimizer_states") or []
    if not states or not 0 < step < total:
        return None
    before = float(states[0]["param_groups"][0]["lr"])
    peak = float(task.optim.make(copy_corners(task.net)).param_groups[0]["lr"])
    now = peak * task.schedule.factor(step, total)
    if abs(now - before) <= NOTICED * max(abs(now), abs(before)):
        return None
    return f"  learning rate of step {step + 1:,}: {before:.4g} -> {now:.4g}, by the schedule over {total:,} steps"
