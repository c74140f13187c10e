"""The start of a W&B run: who is logged in, whether the server answers, online or offline.

No server holds a run up for more than ten seconds; an offline start, which needs none, has longer on a busy machine.

W&B itself is asked for its address, its mode and the login; the one request of ours is whether anybody answers.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import ssl
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from aptlab.redact import redact_text

BUDGET = 9.0  # seconds of the ten promised, after the import of wandb (1 s)
OFFLINE_SECONDS = 3.0  # of the budget, kept for an offline start (measured: 0.5 to 3)
GIVING_UP = 3.0  # for W&B to take down what it began, once its own limit is over (measured: 1.3 on a busy machine)
OFFLINE_LIMIT = 30.0  # no server is waited for: a machine under load may take its time (measured there: over 4)
SERVICE_SECONDS = 6.0  # for W&B's service process to come up (measured: 0.2; seconds on a busy machine)
FINISH_SECONDS = 60.0


@dataclass(frozen=True)
class WandbPlan:
    """How a run is to begin: `mode` is online, offline or none; `reason` is a line for the user, also of a failure."""

    mode: str
    reason: str = ""
    logged_in: bool = False
    failed: bool = False


def choose_wandb_plan(mode: str, base_url: str | None, timeout: float) -> WandbPlan:
    """Choose online, offline or none without a prompt; leaves OFFLINE_SECONDS of the BUDGET, whatever `timeout` is.

    `mode` auto means W&B only for who is logged in. WANDB_MODE and `wandb offline` are respected, in W&B's own
    reading. Starts its service process.
    """
    begun = time.monotonic()
    # Before the import, which reads them: no banners, and no reports of W&B's own about us.
    os.environ.update(WANDB_SILENT="true", WANDB_ERROR_REPORTING="false")
    try:
        import wandb
    except ImportError:
        return WandbPlan("none", "the package wandb is not installed")
    address: dict[str, Any] = {"base_url": base_url} if base_url else {}
    settings = wandb.setup(wandb.Settings(**address, x_service_wait=SERVICE_SECONDS)).settings
    if settings.mode == "disabled":
        return WandbPlan("none", "W&B is disabled by WANDB_MODE or its settings")
    if settings.mode in ("offline", "dryrun"):  # then W&B tells nobody about a login
        return WandbPlan("offline", "as configured", logged_in=bool(settings.api_key))
    try:
        # With a run of the caller's own open, W&B lets nobody log in any more.
        logged_in = wandb.run is not None or wandb.login(prompt=False, verify=False)
    except Exception as error:  # a key that is none, two logins at once
        return WandbPlan("offline", summarize_error(error))
    if mode == "offline":
        return WandbPlan("offline", "as configured", logged_in=logged_in)
    if not logged_in:
        reason = f"no login for {urlsplit(settings.base_url).hostname} was found"
        return WandbPlan("none" if mode == "auto" else "offline", reason)
    left = BUDGET - OFFLINE_SECONDS - (time.monotonic() - begun)
    problem = find_connection_problem(settings.base_url, max(0.5, min(timeout, left)))
    return WandbPlan("offline" if problem else "online", problem or "", logged_in=True)


def find_connection_problem(url: str, timeout: float) -> str | None:
    """Why the server does not answer within `timeout` seconds, or None if it does.

    Any status, redirect or TLS certificate is an answer: W&B itself verifies. No credentials are sent.
    """
    host = urlsplit(url).netloc
    opener = urllib.request.build_opener(_NoRedirect)
    request = urllib.request.Request(url, method="HEAD")
    try:
        # In a thread, because the timeout does not hold for the name lookup.
        run_within(timeout, lambda: opener.open(request, timeout=timeout).close())
    except urllib.error.HTTPError:
        return None
    except Exception as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLError):
            return None
        if isinstance(reason, TimeoutError):
            return f"{host} did not answer within {timeout:.2g} s"
        return f"{host} cannot be reached ({summarize_error(reason)})"
    return None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect, taken as an answer: where it leads may be out of reach although the server is not."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> None:
        return None


def start_wandb_run(
    plan: WandbPlan, arguments: Mapping[str, Any], settings: Mapping[str, Any], seconds: float
) -> tuple[Any, WandbPlan]:
    """The W&B run and the plan it began by, offline if online fails; the run is None if both do.

    A server has `seconds` less OFFLINE_SECONDS, and W&B GIVING_UP to leave it; an offline start has OFFLINE_LIMIT.
    """
    deadline = time.monotonic() + seconds
    if plan.mode == "online":
        folder = Path(arguments["dir"], "wandb")
        before = set(folder.glob("run-*"))
        limit = max(1.0, seconds - OFFLINE_SECONDS)
        try:
            return run_within(limit + GIVING_UP, lambda: _init("online", arguments, settings, limit)), plan
        except StillRunning:
            # The thread of this start has W&B's locks: a second start would hang as well.
            return None, WandbPlan("none", "its server did not let the run begin in time", failed=True)
        except Exception as error:
            plan = WandbPlan("offline", summarize_error(error), logged_in=True)
            for left in set(folder.glob("run-*")) - before:
                shutil.rmtree(left, ignore_errors=True)
    limit = max(OFFLINE_LIMIT, deadline - time.monotonic())
    try:
        return run_within(limit, lambda: _init("offline", arguments, settings, limit)), plan
    except Exception as error:
        return None, WandbPlan("none", summarize_error(error), failed=True)


def _init(
    mode: Literal["online", "offline"], arguments: Mapping[str, Any], settings: Mapping[str, Any], seconds: float
) -> Any:
    import wandb

    # Names that begin with x_ come and go between W&B's versions.
    known = {name: value for name, value in settings.items() if name in wandb.Settings.model_fields}
    try:
        limits = wandb.Settings(**known, init_timeout=max(1.0, seconds))
        resume = "allow" if mode == "online" else None
        return wandb.init(**arguments, reinit="create_new", mode=mode, resume=resume, settings=limits)
    except BaseException:
        wandb.teardown()  # the id of a failed start stays taken otherwise
        raise


def make_wandb_settings(folder: str | os.PathLike[str], base_url: str | None, stats: bool) -> dict[str, Any]:
    """W&B settings under which nothing is captured, copied or collected that was not configured."""
    address = {"base_url": base_url} if base_url else {}
    return address | {
        "console": "off",
        "silent": True,
        "save_code": False,
        "disable_code": True,
        "disable_git": True,
        "disable_job_creation": True,
        "symlink": False,
        "root_dir": str(folder),
        "finish_timeout": FINISH_SECONDS,
        "x_disable_meta": True,
        "x_disable_machine_info": True,
        "x_disable_stats": not stats,
        "x_save_requirements": False,
        "host": "hidden",
        "program": "aptlab",
    }


def stop_wandb() -> None:
    """Drop the connection to W&B; if it failed, its hook at exit would print a traceback."""
    wandb = sys.modules.get("wandb")
    if wandb is not None:
        with contextlib.suppress(Exception):
            run_within(2.0, wandb.teardown)


class StillRunning(TimeoutError):
    """Work that takes too long and goes on in its thread."""


def run_within(seconds: float, work: Callable[[], Any]) -> Any:
    """Run `work` in a thread and return its value; raises its error, or StillRunning after `seconds`."""
    outcome: dict[str, Any] = {}

    def record() -> None:
        try:
            outcome["value"] = work()
        except BaseException as error:
            outcome["error"] = error

    thread = threading.Thread(target=record, name="wandb", daemon=True)
    thread.start()
    thread.join(max(seconds, 0.1))
    if thread.is_alive():
        raise StillRunning(f"no answer within {seconds:.0f} s")
    problem = outcome.get("error")
    if problem is not None:
        # SystemExit and the like of a library end its own work, not the run.
        raise problem if isinstance(problem, Exception) else RuntimeError(summarize_error(problem))
    return outcome["value"]


def summarize_error(error: object) -> str:
    """An error as one short redacted line."""
    lines = redact_text(str(error)).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:200]
