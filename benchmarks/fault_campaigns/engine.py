"""Commands of aptlab in processes of their own that need no start of Python and torch: forks of a server with both.

The server imports and does nothing else: it has one thread, no random numbers drawn, no configuration read. So a
command is as in an interpreter of its own, with its own environment, folder, session and files for its output, and its
exit code, output, process id and signals are a process's. What is about the start itself (what is imported, entry
points, ranks that Lightning starts) goes through `python -m aptlab`. Campaigns and tests share this engine.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from subprocess import CompletedProcess, TimeoutExpired

PRELOAD = ["lightning.pytorch", "aptlab.cli", "aptlab.commands.train", "aptlab.commands.eval", "aptlab.training.run"]
PRELOAD += ["aptlab.evals", "benchmarks.fault_campaigns.engine"]
LIMIT = 300.0  # seconds that a command may take before it counts as hung
HUNG = 124  # exit code of a command that had to be killed for that
FAULT = "APTLAB_FAULT"


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code as a shell tells it, and what it printed."""

    code: int
    text: str

    def is_one_message(self) -> bool:
        """Whether it told a person and not a programmer."""
        return bool(self.text.strip()) and "Traceback" not in self.text


@dataclass
class Command:
    """A command that runs: a process of its own session, so that all of it can be sent a signal.

    out, err  files of its output, the same one perhaps; what `out` held before is not told
    """

    words: tuple[str, ...]
    process: ForkServerProcess
    out: Path
    err: Path
    offset: int = 0

    @property
    def pid(self) -> int:
        """Of the command, which leads its session."""
        return self.process.pid or 0

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self.process.exitcode

    def wait(self, limit: float = LIMIT, *, watch: Callable[[], None] | None = None) -> Ended:
        """How it ended; one that does not end in time is killed.

        watch  is called whenever it has stopped itself (a fault with STOP), before it is sent on
        """
        deadline = time.monotonic() + limit
        while watch and self.poll() is None and time.monotonic() < deadline:
            if read_state(self.pid) == "T":
                watch()
                os.kill(self.pid, signal.SIGCONT)
            self.process.join(0.02)
        self.process.join(max(deadline - time.monotonic(), 0.0))
        code = self.poll()
        if code is None:
            self.process.kill()
            self.process.join()
            code = HUNG
        return Ended(128 - code if code < 0 else code, self._read(self.out, self.offset))

    def complete(self, limit: float = LIMIT) -> CompletedProcess[str]:
        """The same as `subprocess.run` has it; TimeoutExpired, and no process left, where it takes longer."""
        ended = self.wait(limit)
        if ended.code == HUNG:
            raise TimeoutExpired(self.words, limit)
        errors = "" if self.err == self.out else self._read(self.err, 0)
        return CompletedProcess(self.words, self.poll() or 0, ended.text, errors)

    def _read(self, path: Path, offset: int) -> str:
        with open(path, errors="replace") as file:
            file.seek(offset)
            return file.read()


def start_command(
    *words: str,
    out: Path,
    err: Path | None = None,
    folder: Path | None = None,
    fault: str | None = None,
    env: Mapping[str, str] | None = None,
    path: str = "",
) -> Command:
    """Begin `aptlab WORDS`; its output goes to the end of `out`, and its errors too where `err` is None.

    folder  to run in; None: the one of now
    fault   see `aptlab.faults`
    env     beside the environment of now
    path    in front of sys.path
    """
    own = {key: value for key, value in os.environ.items() if key != FAULT} | dict(env or {})
    own |= {FAULT: fault} if fault else {}
    offset = out.stat().st_size if out.exists() else 0
    files = (str(out), str(err or out))
    process = get_server().Process(target=serve_command, args=(words, own, str(folder or Path.cwd()), files, path))
    process.start()
    return Command(words, process, out, err or out, offset)


@cache
def get_server() -> ForkServerContext:
    """The server, which is started with the first command."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # as the command does, before torch is loaded
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    return context


def serve_command(words: tuple[str, ...], env: dict[str, str], folder: str, files: tuple[str, str], path: str) -> None:
    """In the child: become the command."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a shell, whatever nohup or a job has ignored
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    for number, name in zip((1, 2), files):
        handle = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(handle, number)
        os.close(handle)
    import aptlab.__main__

    sys.argv = [aptlab.__main__.__file__, *words]  # Lightning starts further ranks by it
    sys.path[:0] = [path] if path else []
    from aptlab.cli import main

    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    raise SystemExit(code)  # the end of multiprocessing's own start would make a code of a traceback


def read_state(pid: int) -> str:
    """The letter of /proc: R runs, S sleeps, T is stopped, Z is dead; "?" for none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "?"


def count_server_threads(answer: multiprocessing.SimpleQueue[int]) -> None:
    """In a child of the server: how many threads the server has."""
    answer.put(len(os.listdir(f"/proc/{os.getppid()}/task")))
