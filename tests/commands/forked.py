"""`aptlab …` in a process of its own that needs no start of Python and torch: forked from a server that has them.

The server imports and does nothing else: it has one thread, no random numbers drawn, no configuration read. So a
command is as in an interpreter of its own, and its exit code, output, process id and signals are a process's. Tests
about the start itself (what is imported, entry points, ranks that Lightning starts) go through `python -m aptlab`.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess, TimeoutExpired
from typing import Any

PRELOAD = ["lightning.pytorch", "aptlab.cli", "aptlab.commands.train", "aptlab.training.run", "tests.commands.forked"]
LIMIT = 300.0  # seconds


@dataclass
class Command:
    """A command that runs, as `subprocess.Popen` has it."""

    words: tuple[str, ...]
    process: Any
    folder: Path

    @property
    def pid(self) -> int:
        """Of the command, which leads a session of its own."""
        return self.process.pid

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self.process.exitcode

    def wait(self, timeout: float = LIMIT) -> CompletedProcess[str]:
        """What it printed, and its exit code; TimeoutExpired, and no process left, where it takes longer."""
        self.process.join(timeout)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
            raise TimeoutExpired(self.words, timeout)
        shown = [(self.folder / name).read_text() for name in ("out", "err")]
        return CompletedProcess(self.words, self.process.exitcode, *shown)


def run_forked(*words: str, fault: str = "", path: str = "", **environment: str) -> CompletedProcess[str]:
    """Run `aptlab WORDS` to its end; see `start_forked`."""
    return start_forked(*words, fault=fault, path=path, **environment).wait()


def start_forked(*words: str, fault: str = "", path: str = "", **environment: str) -> Command:
    """Begin `aptlab WORDS` in the folder and environment of now, with a fault, and a folder in front of sys.path."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    folder = Path(tempfile.mkdtemp())
    own = {**os.environ, **environment} | ({"APTLAB_FAULT": fault} if fault else {})
    process = context.Process(target=serve_command, args=(words, own, os.getcwd(), str(folder), path))
    process.start()
    return Command(words, process, folder)


def serve_command(words: tuple[str, ...], environment: dict[str, str], where: str, folder: str, path: str) -> None:
    """In the child: become the command."""
    os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(where)
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(Path(folder, name), os.O_WRONLY | os.O_CREAT), number)
    sys.argv = ["aptlab", *words]
    sys.path[:0] = [path] if path else []
    from aptlab.cli import main

    raise SystemExit(main())


def count_server_threads(answer: Any) -> None:
    """In a child of the server: how many threads the server has."""
    answer.put(len(os.listdir(f"/proc/{os.getppid()}/task")))
