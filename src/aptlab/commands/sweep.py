"""`aptlab train -m …`: many trainings, each in its own process, continued by repeating the command."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from aptlab.config import build, check, compose
from aptlab.config.sweeps import split_arguments
from aptlab.errors import ConfigError
from aptlab.redact import redact_overrides
from aptlab.sweep.launchers import Launcher
from aptlab.sweep.plan import ComposeJob, SweepPlan
from aptlab.sweep.runner import COMMAND, run_sweep
from aptlab.training.plan import plan_training
from aptlab.training.text_size import inspect_training


@dataclass(frozen=True)
class CheckedSweep:
    """A checked sweep: its plan, where it runs, the folder that holds all sweeps of its job name, the command line."""

    plan: SweepPlan
    launcher: Launcher
    root: Path
    arguments: tuple[str, ...]


def run(args: list[str], *, command: Sequence[str] = COMMAND, compose_job: ComposeJob | None = None) -> int:
    """Plan, check every job, run them; returns 0, 1 (a job failed), or 128 + signal (interrupted).

    `command` and `compose_job` replace `python -m aptlab train` and the check of a job's configuration, for tests.
    Raises AptlabError before anything is run or written if the sweep or any job of it is wrong.
    """
    request = read_sweep_request(args, compose_job=compose_job or partial(compose_training, asked={}))
    return run_sweep(
        request.plan, launcher=request.launcher, root=request.root, arguments=request.arguments, command=command
    )


def compose_training(overrides: list[str], asked: dict[str, list[str]] | None = None) -> Any:
    """The checked configuration of one job, exactly as `aptlab train` will see it; no torch.

    `asked` is that of `inspect_inputs`, for all jobs.
    """
    config = plan_training(overrides).config
    inspect_training(config, asked=asked)
    return config


def read_sweep_request(args: Sequence[str], *, compose_job: ComposeJob = compose_training) -> CheckedSweep:
    """Read the command line and check every job. Raises ConfigError with all problems of all jobs at once."""
    args = [arg for arg in args if arg not in ("-m", "--multirun")]
    mine, overrides = split_arguments(args, ("sweep", "launcher"))
    config = compose("sweep", mine)
    check(config)
    rule, launcher = build(config.cfg.sweep), build(config.cfg.launcher)
    fixed = [o for o in overrides if o.partition("=")[0] == "run_dir"]
    if fixed:
        raise ConfigError(f"{fixed[0]}: each job of a sweep has a folder of its own; use sweep.name or paths.root")
    plan = rule.make_plan(overrides, compose_job)
    first = plan.config.cfg
    root = Path(str(first.paths.root)).expanduser() / str(first.job) / "sweeps"
    return CheckedSweep(plan, launcher, root, tuple(redact_overrides(args)))
