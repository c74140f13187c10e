"""Weights & Biases as a logger that cannot delay, stop or betray a run.

A server is waited for at most ten seconds and nothing prompts; what fails falls back to an offline run, then to
metrics.csv alone, with one line that says why. Configs, summaries and figures go out redacted.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import shlex
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from aptlab.loggers import wandb_start
from aptlab.loggers.base import RunLogger
from aptlab.loggers.wandb_start import WandbPlan, run_within, summarize_error
from aptlab.redact import redact_value
from aptlab.runs.table import MetricsTable
from aptlab.shown import show_line

log = logging.getLogger("aptlab.loggers")


class WandbRun(RunLogger):
    """One W&B run. After the first failure of W&B it warns once and stays silent; see `start`."""

    def __init__(self, run: Any, folder: Path, *, online: bool, logged_until: int = -1) -> None:
        super().__init__()
        self._run = run
        self._folder = folder
        self._until = logged_until
        self._dead = False
        self.online = online
        self.id = str(run.id)

    @classmethod
    def start(
        cls,
        folder: Path,
        arguments: Mapping[str, Any],
        *,
        mode: str,
        base_url: str | None,
        timeout: float,
        stats: bool = False,
        resume_id: str | None = None,
    ) -> WandbRun | None:
        """Start or continue a run in `folder`/wandb, or None where there is to be none. Never raises.

        `arguments` are those of `wandb.init` that name and describe the run; `resume_id` is the id of the run
        that is continued. The other arguments are those of `Tracking`.
        """
        with contextlib.suppress(ImportError):
            import wandb  # noqa: F401  (outside the budget: a slow disk is no reason to give up)
        deadline = time.monotonic() + wandb_start.BUDGET
        run, plan = None, _choose_plan(mode, base_url, timeout)
        if plan.mode != "none":
            described = {**arguments, "id": resume_id or secrets.token_hex(4), "dir": str(folder)}
            settings = wandb_start.make_wandb_settings(folder, base_url, stats)
            run, plan = wandb_start.start_wandb_run(plan, described, settings, deadline - time.monotonic())
        if run is None:
            wandb_start.stop_wandb()
            level = logging.DEBUG if mode == "auto" and not plan.failed else logging.WARNING
            log.log(level, "no W&B: %s; metrics are in metrics.csv", plan.reason)
            return None
        online = plan.mode == "online"
        until = (int(getattr(run, "starting_step", 0)) - 1) if online else _find_last_step(folder, resume_id)
        logger = cls(run, folder, online=online, logged_until=until)
        logger._announce(plan)
        return logger

    @property
    def name(self) -> str:
        """The project."""
        return str(getattr(self._run, "project", "") or "")

    @property
    def version(self) -> str:
        """The id of the run, which stays the same when it is resumed."""
        return self.id

    @property
    def run_id(self) -> str:
        """The id of the run, which stays the same when it is resumed."""
        return self.id

    @property
    def save_dir(self) -> str:
        """The run folder."""
        return str(self._folder)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Send numbers; steps that an earlier part of the same run has sent are not sent twice."""
        if step is not None and step <= self._until:
            return
        values = {name: float(value) for name, value in metrics.items() if _is_scalar(value)}
        if values:
            self._safely(lambda: self._run.log(values, step=step))

    @rank_zero_only
    def log_figure(self, path: str | Path, name: str = "figure") -> None:
        """Send a picture file."""

        def send() -> None:
            import wandb

            self._run.log({name: wandb.Image(str(path))})

        self._safely(send)

    @rank_zero_only
    def log_result(self, result: Mapping[str, Any]) -> None:
        """Put the final numbers into the run's summary under `result/`, redacted."""
        flat = {f"result/{name}": value for name, value in _flatten(redact_value(dict(result)))}
        self._safely(lambda: self._run.summary.update(flat))

    @rank_zero_only
    def mark_preempting(self) -> None:
        """Say that the run is being stopped from outside and will be continued."""
        self._safely(lambda: self._run.mark_preempting())

    @rank_zero_only
    def close(self, exit_code: int = 0) -> None:
        """End the run; waits for uploads for a minute at most. What is left over stays in the folder."""
        limit = wandb_start.FINISH_SECONDS + 5
        self._safely(lambda: run_within(limit, lambda: self._run.finish(exit_code=exit_code)))
        self._dead = True

    def _safely(self, act: Callable[[], Any]) -> None:
        if self._dead:
            return
        try:
            act()
        except Exception as error:
            self._dead = True
            wandb_start.stop_wandb()
            log.warning("W&B stopped working (%s); the run goes on with metrics.csv", summarize_error(error))

    def _announce(self, plan: WandbPlan) -> None:
        if self.online:
            log.info("W&B: %s", getattr(self._run, "url", None) or self.id)
            return
        folder = Path(str(getattr(self._run, "dir", self._folder / "wandb"))).parent
        first = "" if plan.logged_in else "wandb login && "
        log.info("W&B offline (%s); to upload later: %swandb sync %s", plan.reason, first, shlex.quote(str(folder)))


def _choose_plan(mode: str, base_url: str | None, timeout: float) -> WandbPlan:
    """The plan of `choose_wandb_plan`, whatever W&B raises."""
    try:
        return wandb_start.choose_wandb_plan(mode, base_url, timeout)
    except Exception as error:
        return WandbPlan("none", summarize_error(error), failed=True)


def _find_last_step(folder: Path, resume_id: str | None) -> int:
    """The last step that an earlier part of an offline run has logged, from metrics.csv; -1 if none."""
    if resume_id is None:
        return -1
    try:
        return max(MetricsTable.read(folder / "metrics.csv").rows, default=-1)
    except OSError:
        return -1


def _is_scalar(value: Any) -> bool:
    return isinstance(value, int | float) or (isinstance(value, torch.Tensor) and value.numel() == 1)


def _flatten(value: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """Nested dictionaries as `a/b` names; lists stay out, they are in result.json."""
    if isinstance(value, Mapping):
        return [pair for key, item in value.items() for pair in _flatten(item, f"{prefix}{key}/")]
    shown = show_line(value) if isinstance(value, str) else value
    return [] if isinstance(value, list) else [(show_line(prefix.rstrip("/")), shown)]
