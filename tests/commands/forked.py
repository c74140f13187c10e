"""`aptlab …` as a fork of a server that has torch loaded: see `benchmarks/fault_campaigns/engine.py`."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess

from benchmarks.fault_campaigns.engine import LIMIT, Command, start_command


@dataclass
class ForkedCommand:
    """A command that runs, as `subprocess.Popen` has it."""

    command: Command

    @property
    def pid(self) -> int:
        """Of the command, which leads a session of its own."""
        return self.command.pid

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self.command.poll()

    def wait(self, timeout: float = LIMIT) -> CompletedProcess[str]:
        """What it printed, and its exit code; TimeoutExpired, and no process left, where it takes longer."""
        return self.command.complete(timeout)


def run_forked(*words: str, fault: str = "", path: str = "", **environment: str) -> CompletedProcess[str]:
    """Run `aptlab WORDS` to its end; see `start_forked`."""
    return start_forked(*words, fault=fault, path=path, **environment).wait()


def start_forked(*words: str, fault: str = "", path: str = "", **environment: str) -> ForkedCommand:
    """Begin `aptlab WORDS` in the folder and environment of now, with a fault, and a folder in front of sys.path."""
    folder = Path(tempfile.mkdtemp())
    files = {"out": folder / "out", "err": folder / "err"}
    return ForkedCommand(start_command(*words, **files, fault=fault, env=environment, path=path))
