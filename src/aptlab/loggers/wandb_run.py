"""Weights & Biases as a logger that cannot hold up, stop or betray a run.

A start takes at most ten seconds and asks nothing; what fails falls back to an offline run, then to
metrics.csv alone, with one line that says why. Configs, summaries and figures go out redacted.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shlex
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from aptlab.loggers.login import WandbDecision, choose_wandb_mode, find_wandb_url
from aptlab.loggers.tracking import Tracking
from aptlab.redact import redact_text, redact_value
from aptlab.runs.table import MetricsTable

log = logging.getLogger("aptlab.loggers")

BUDGET = 9.0  # seconds from the first question to the first step, of the ten promised
OFFLINE_RESERVE = 3.0  # seconds of it kept for an offline start (measured: 0.6 to 3)
FINISH_SECONDS = 60.0


class WandbRun(Logger):
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
        rule: Tracking,
        folder: Path,
        *,
        resume_id: str | None = None,
        config: Mapping[str, Any] | None = None,
        name: str | None = None,
    ) -> WandbRun | None:
        """Start or continue a run in `folder`/wandb, or None where there is to be none. Never raises."""
        begun = time.monotonic()
        url = find_wandb_url(rule.base_url)
        decision = choose_wandb_mode(rule.mode, url, rule.timeout)
        if decision.mode == "none":
            if decision.why:
                level = logging.DEBUG if rule.mode == "auto" else logging.WARNING
                log.log(level, "no W&B: %s; metrics are in metrics.csv", decision.why)
            return None
        identity = resume_id or secrets.token_hex(4)
        options = _options(rule, url, folder, identity, name or folder.name, config)
        with _no_questions():
            run, decision = _begin(options, decision, folder, begun)
        if run is None:
            log.warning("no W&B: %s; metrics are in metrics.csv", decision.why)
            return None
        online = decision.mode == "online"
        until = (int(getattr(run, "starting_step", 0)) - 1) if online else _last_step(folder, resume_id)
        logger = cls(run, folder, online=online, logged_until=until)
        logger._announce(decision)
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
    def save_dir(self) -> str:
        """The run folder."""
        return str(self._folder)

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: the config went out at the start, redacted."""

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
        flat = {f"result/{name}": value for name, value in _flat(redact_value(dict(result)))}
        self._safely(lambda: self._run.summary.update(flat))

    @rank_zero_only
    def mark_preempting(self) -> None:
        """Say that the run is being stopped from outside and will be continued."""
        self._safely(lambda: self._run.mark_preempting())

    @rank_zero_only
    def close(self, exit_code: int = 0) -> None:
        """End the run; waits for uploads for a minute at most. What is left over stays in the folder."""
        self._safely(lambda: _within(FINISH_SECONDS + 5, lambda: self._run.finish(exit_code=exit_code)))
        self._dead = True

    def _safely(self, act: Callable[[], Any]) -> None:
        if self._dead:
            return
        try:
            act()
        except Exception as error:
            self._dead = True
            _let_go()
            log.warning("W&B stopped working (%s); the run goes on with metrics.csv", _words(error))

    def _announce(self, decision: WandbDecision) -> None:
        if self.online:
            log.info("W&B: %s", getattr(self._run, "url", None) or self.id)
            return
        folder = Path(str(getattr(self._run, "dir", self._folder / "wandb"))).parent
        first = "" if decision.logged_in else "wandb login && "
        log.info("W&B offline (%s); to upload later: %swandb sync %s", decision.why, first, shlex.quote(str(folder)))


def _begin(options: dict[str, Any], decision: WandbDecision, folder: Path, begun: float) -> tuple[Any, WandbDecision]:
    """The run and how it was started, within the budget; the run is None if W&B does not start at all."""
    os.environ.update(WANDB_SILENT="true", WANDB_ERROR_REPORTING="false")
    try:
        import wandb  # noqa: F401  (outside the deadlines below: a slow disk is no reason to give up)
    except Exception as error:
        return None, WandbDecision("none", _words(error))
    if decision.mode == "online":
        seconds = BUDGET - OFFLINE_RESERVE - (time.monotonic() - begun)
        before = set((folder / "wandb").glob("run-*"))
        try:
            return _within(seconds + 1, lambda: _init(options, "online", seconds)), decision
        except _Stuck:
            # the start still runs in its thread and holds W&B's locks: a second one would hang as well
            return None, WandbDecision("none", "its server did not let the run begin in time", logged_in=True)
        except Exception as error:
            decision = WandbDecision("offline", _words(error), logged_in=True)
            for left in set((folder / "wandb").glob("run-*")) - before:
                shutil.rmtree(left, ignore_errors=True)
    seconds = max(OFFLINE_RESERVE, BUDGET - (time.monotonic() - begun))
    try:
        return _within(seconds, lambda: _init(options, "offline", seconds)), decision
    except Exception as error:
        return None, WandbDecision("none", _words(error))


def _init(options: dict[str, Any], mode: Literal["online", "offline"], seconds: float) -> Any:
    """wandb.init with settings of its own; a failed start is torn down, else its id stays taken."""
    import wandb

    known = wandb.Settings.model_fields
    settings = {name: value for name, value in options["settings"].items() if name in known}
    arguments = {name: value for name, value in options.items() if name != "settings"}
    if mode == "online":
        arguments["resume"] = "allow"
    try:
        limits = wandb.Settings(**settings, init_timeout=max(1.0, seconds))
        return wandb.init(**arguments, mode=mode, settings=limits)
    except BaseException:
        wandb.teardown()
        raise


def _options(
    rule: Tracking, url: str | None, folder: Path, identity: str, name: str, config: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Arguments of wandb.init: nothing is captured, copied or collected that was not asked for."""
    settings: dict[str, Any] = {
        "console": "off",
        "silent": True,
        "save_code": False,
        "disable_code": True,
        "disable_git": True,
        "disable_job_creation": True,
        "symlink": False,
        "root_dir": str(folder),
        "login_timeout": 1.0,
        "finish_timeout": FINISH_SECONDS,
        "x_service_wait": OFFLINE_RESERVE * 2,
        "x_disable_meta": True,
        "x_disable_machine_info": True,
        "x_disable_stats": not rule.stats,
        "x_save_requirements": False,
        "host": "hidden",
        "program": "aptlab",
    }
    if url:
        settings["base_url"] = url
    return {
        "project": rule.project or os.environ.get("WANDB_PROJECT") or "aptlab",
        "entity": rule.entity or os.environ.get("WANDB_ENTITY"),
        "group": rule.group or os.environ.get("WANDB_RUN_GROUP"),
        "tags": list(rule.tags) or None,
        "name": redact_text(name),
        "id": identity,
        "dir": str(folder),
        "config": redact_value(dict(config or {})),
        "reinit": "create_new",
        "settings": settings,
    }


def _let_go() -> None:
    """Drop the connection to a W&B that failed, or its hook at exit would print a traceback."""
    wandb = sys.modules.get("wandb")
    if wandb is not None:
        with contextlib.suppress(Exception):
            _within(2.0, wandb.teardown)


class _Stuck(Exception):
    """Something took too long and still goes on in its thread."""


@contextlib.contextmanager
def _no_questions() -> Iterator[None]:
    """Hide the terminal: W&B asks for a login only where it sees one."""
    terminal = sys.stdin
    try:
        with open(os.devnull) as sys.stdin:
            yield
    finally:
        sys.stdin = terminal


def _within(seconds: float, act: Callable[[], Any]) -> Any:
    """Do something in a thread; raises its error, or _Stuck if it takes longer."""
    outcome: dict[str, Any] = {}

    def work() -> None:
        try:
            outcome["value"] = act()
        except BaseException as error:
            outcome["error"] = error

    thread = threading.Thread(target=work, name="wandb", daemon=True)
    thread.start()
    thread.join(max(seconds, 0.1))
    if thread.is_alive():
        raise _Stuck(f"no answer within {seconds:.0f} s")
    if "error" in outcome:
        problem = outcome["error"]
        raise problem if isinstance(problem, Exception) else RuntimeError(_words(problem))
    return outcome["value"]


def _last_step(folder: Path, resume_id: str | None) -> int:
    """The last step that an earlier part of an offline run has logged, from metrics.csv; -1 if none."""
    if resume_id is None:
        return -1
    try:
        return max(MetricsTable.read(folder / "metrics.csv").rows, default=-1)
    except OSError:
        return -1


def _is_scalar(value: Any) -> bool:
    return isinstance(value, int | float) or (hasattr(value, "numel") and value.numel() == 1)


def _flat(value: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """Nested dictionaries as `a/b` names; lists stay out, they are in result.json."""
    if isinstance(value, Mapping):
        return [pair for key, item in value.items() for pair in _flat(item, f"{prefix}{key}/")]
    return [] if isinstance(value, list) else [(prefix.rstrip("/"), value)]


def _words(error: BaseException) -> str:
    """An error as one short redacted line."""
    lines = redact_text(str(error)).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:200]
