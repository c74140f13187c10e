"""What `aptlab train -m …` asks for; everything is checked here, before anything is written or started."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aptlab.config.sweeps import split_arguments
from aptlab.errors import AptlabError, ConfigError
from aptlab.redact import redact_overrides
from aptlab.sweep.job import SweepJob, find_varied_overrides, hash_experiment
from aptlab.sweep.launchers import Launcher

if TYPE_CHECKING:
    from aptlab.sweep.grid import Grid, GridWork
    from aptlab.sweep.optuna_search import OptunaSearch
    from aptlab.sweep.trials import OptunaWork

Compose = Callable[[list[str]], Any]
SHOWN = 12  # problems in one message


@dataclass(frozen=True)
class SweepRequest:
    """A checked sweep: its work, where it runs, the folder that holds all sweeps of its job name, the command line."""

    sweep: Grid | OptunaSearch
    work: GridWork | OptunaWork
    launcher: Launcher
    root: Path
    command: tuple[str, ...]


def plan_sweep(args: Sequence[str], *, compose: Compose | None = None) -> SweepRequest:
    """Read the command line and check every job. Raises ConfigError with all problems of all jobs at once."""
    from aptlab.config import build, check
    from aptlab.config import compose as compose_config

    args = [arg for arg in args if arg not in ("-m", "--multirun")]
    mine, overrides = split_arguments(args, ("sweep", "launcher"))
    config = compose_config("sweep", mine)
    check(config)
    sweep, launcher = build(config.cfg.sweep), build(config.cfg.launcher)
    fixed = [o for o in overrides if o.partition("=")[0] == "run_dir"]
    if fixed:
        raise ConfigError(f"{fixed[0]}: each job of a sweep has a folder of its own; use sweep.name or paths.root")
    work = sweep.plan(overrides, compose or compose_train)
    first = work.config.cfg
    root = Path(str(first.paths.root)).expanduser() / str(first.job) / "sweeps"
    return SweepRequest(sweep, work, launcher, root, tuple(redact_overrides(args)))


def compose_train(overrides: list[str]) -> Any:
    """The checked configuration of one job, exactly as `aptlab train` will see it; no torch."""
    from aptlab.training.plan import plan_training

    return plan_training(overrides).config


def check_jobs(jobs: Sequence[Sequence[str]], compose: Compose) -> tuple[list[SweepJob], Any]:
    """Compose every job; returns the distinct ones and the configuration of the first.

    Raises ConfigError naming each problem once, with the jobs that have it.
    """
    names = [",".join(redact_overrides(name)) for name in find_varied_overrides(jobs)]
    problems: dict[str, list[str]] = {}
    found: dict[str, SweepJob] = {}
    configs = []
    for overrides, differing, name in zip(jobs, find_varied_overrides(jobs), names):
        try:
            config = compose(list(overrides))
            key = hash_experiment(overrides, config.hash())
        except AptlabError as error:
            for line in _lines(str(error)):
                problems.setdefault(line, []).append(name)
            continue
        configs.append(config)
        found.setdefault(key, SweepJob(tuple(overrides), key, differing, len(found)))
    if problems:
        raise ConfigError(_report(problems, len(jobs)))
    homes = {(str(config.cfg.job), str(config.cfg.paths.root)) for config in configs}
    if len(homes) > 1:
        raise ConfigError("job and paths.root say where a sweep is kept; give each of them one value")
    return list(found.values()), configs[0]


def _lines(message: str) -> Iterable[str]:
    """The problems in a message, without the line that announces them."""
    lines = [line for line in message.splitlines() if line.strip()]
    return lines[1:] if len(lines) > 1 and lines[0].endswith(":") else lines


def _report(problems: dict[str, list[str]], total: int) -> str:
    bad = len({name for names in problems.values() for name in names})
    lines = [f"{bad} of {total} jobs cannot run; nothing was started"]
    for message, names in list(problems.items())[:SHOWN]:
        more = f" and {len(names) - 2} more" if len(names) > 2 else ""
        where = "" if len(names) == total else f"  [{', '.join(names[:2])}{more}]"
        lines.append(f"{message}{where}")
    if len(problems) > SHOWN:
        lines.append(f"… and {len(problems) - SHOWN} more problems")
    return "\n".join(lines)
