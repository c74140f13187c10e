"""A job's process: its own session, ended with its parent, stopped gently and then for good."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from aptlab.runs.files import open_file, read_file_text
from aptlab.sweep.job import JobCommand

POLL = 0.05  # seconds between two looks at a process
KILL_NOW = "kill"  # content of the stop file: do not wait any longer
_PR_SET_PDEATHSIG = 1


class ChildProcess:
    """The running process of a task. Make it in a thread that lives as long as the process: on Linux the kernel
    ends the process when that thread goes away, even by SIGKILL."""

    def __init__(self, task: JobCommand, *, grace: float) -> None:
        self.task = task
        self.grace = grace
        self.begun = time.monotonic()
        self._asked: float | None = None
        self._code: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        Path(task.log).parent.mkdir(parents=True, exist_ok=True)
        with open_file(task.log, "ab") as log:
            try:
                self._process = self._start(log)
            except OSError as error:
                log.write(f"cannot start {task.command[0]}: {error}\n".encode())
                self._code = 127

    def _start(self, log: object) -> subprocess.Popen[bytes]:
        windows = sys.platform == "win32"
        return subprocess.Popen(
            self.task.command,
            stdin=subprocess.DEVNULL,
            stdout=log,  # type: ignore[arg-type]
            stderr=subprocess.STDOUT,
            cwd=self.task.cwd,
            env={**os.environ, **self.task.env},
            start_new_session=not windows,
            creationflags=subprocess.CREATE_NEW_PROCESS_GROUP if windows else 0,  # type: ignore[attr-defined]
            preexec_fn=_die_with_parent(),
        )

    @property
    def seconds(self) -> float:
        """Wall time since the start."""
        return time.monotonic() - self.begun

    def poll(self) -> int | None:
        """The exit code, or None while it runs; passes on a wish to stop."""
        if self._process is None or self._code is not None:
            return self._code
        self._code = self._process.poll()
        if self._code is None:
            self._stop_if_asked()
        else:
            self._signal(_KILL)  # ranks that outlived their leader
        return self._code

    def end(self) -> int:
        """Ask to stop, wait for the grace period, kill; returns the exit code."""
        self._ask(signal.SIGTERM)
        while self.poll() is None:
            if self.seconds_since_asked > self.grace:
                self._signal(_KILL)
            time.sleep(POLL)
        return self._code or 0

    @property
    def seconds_since_asked(self) -> float:
        """How long ago the process was asked to stop; 0 if it was not."""
        return 0.0 if self._asked is None else time.monotonic() - self._asked

    def _stop_if_asked(self) -> None:
        wish = read_stop_signal(self.task.stop)
        if wish is None and self._asked is None:
            return
        if self._asked is None:
            self._ask(signal.SIGTERM if wish == KILL_NOW else int(wish or 0) or signal.SIGTERM)
        if wish == KILL_NOW or self.seconds_since_asked > self.grace:
            self._signal(_KILL)

    def _ask(self, number: int) -> None:
        if self._asked is None:
            self._asked = time.monotonic()
            self._signal(number)

    def _signal(self, number: int) -> None:
        """To the whole process group, so that every rank of a distributed job hears it."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if sys.platform == "win32":
                self._process.terminate()
            else:
                os.killpg(self._process.pid, number)


def run_job_command(task: JobCommand, grace: float) -> tuple[int, float]:
    """Run a task to its end in this process; returns exit code and seconds. Ends it if our own parent dies."""
    with contextlib.suppress(ValueError):  # not the main thread
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C reaches the job through the stop file
    parent = os.getppid()
    child = ChildProcess(task, grace=grace)
    while child.poll() is None:
        if os.getppid() != parent:
            return child.end(), child.seconds
        time.sleep(4 * POLL)
    return child.poll() or 0, child.seconds


def read_stop_signal(stop: str | Path) -> str | None:
    """What the stop file asks for: a signal's number, KILL_NOW, or None while there is no such file."""
    try:
        return read_file_text(stop).strip() or str(int(signal.SIGTERM))
    except (OSError, ValueError):
        return None


def write_stop_signal(stop: Path, what: str) -> None:
    """Ask the jobs to end: a signal's number, or KILL_NOW."""
    with open_file(stop, "w", encoding="ascii") as file:
        file.write(what)


def _die_with_parent() -> Callable[[], None] | None:
    """What the child calls before exec on Linux: SIGTERM to it when its parent thread is gone."""
    if not sys.platform.startswith("linux"):
        return None
    prctl, parent, number = ctypes.CDLL(None).prctl, os.getpid(), int(signal.SIGTERM)

    def prepare() -> None:
        prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)

    return prepare


_KILL = int(getattr(signal, "SIGKILL", signal.SIGTERM))
