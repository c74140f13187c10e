"""A folder in which commands of aptlab are run, broken and compared; commands start as forks, which saves the imports.

A fork server imports torch, lightning and the commands once and runs nothing; each command is a fork of it with its own
environment, folder, session and files for its output. What counts is the same as with a fresh interpreter: the exit
code, the files, what was printed. Two ranks start as fresh interpreters, by Lightning.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

COMMON = ["size=debug", "trainer=debug", "logger=csv", "context=32", "data.batch=4", "callbacks.checkpoints.every=3"]
STEPS = 10  # of trainer=debug
PRELOAD = ["aptlab.cli", "aptlab.commands.train", "aptlab.commands.eval", "aptlab.training.run", "aptlab.evals"]
LIMIT = 300.0  # seconds that a command may take before it counts as hung


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code as a shell tells it, and what it printed."""

    code: int
    text: str

    def is_one_message(self) -> bool:
        """Whether it told a person and not a programmer."""
        return bool(self.text.strip()) and "Traceback" not in self.text


@dataclass
class Place:
    """A temporary folder in which every run gets a folder of its own."""

    root: Path
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def make_name(self) -> Path:
        """A folder that does not exist yet."""
        return self.root / f"run-{next(self.numbers)}"

    def begin(self, log: Path, *args: str, fault: str | None = None, env: dict[str, str] | None = None) -> Command:
        """Start `aptlab …`; its output goes to the end of `log`."""
        more = {"OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"} | (env or {})
        if fault:
            more["APTLAB_FAULT"] = fault
        return Command.begin(args, log, self.root, more)

    def run(self, log: Path, *args: str, fault: str | None = None, env: dict[str, str] | None = None) -> Ended:
        """`aptlab …` to its end."""
        return self.begin(log, *args, fault=fault, env=env).wait()

    def train(self, run: Path, *args: str, fault: str | None = None, env: dict[str, str] | None = None) -> Ended:
        """`aptlab train`, with the log beside the run folder."""
        return self.run(Path(f"{run}.log"), "train", *args, fault=fault, env=env)

    def start_run(self, *args: str, fault: str | None = None, env: dict[str, str] | None = None) -> tuple[Path, Ended]:
        """A new debug run: its folder and how it ended."""
        run = self.make_name()
        return run, self.train(run, *COMMON, *args, f"run_dir={run}", fault=fault, env=env)

    def resume(self, run: Path, *args: str, fault: str | None = None, env: dict[str, str] | None = None) -> Ended:
        """`aptlab train ckpt=<the run>`."""
        return self.train(run, f"ckpt={run}", *args, fault=fault, env=env)


@dataclass
class Command:
    """A command that runs: a process of its own session, so that all of it can be sent a signal."""

    process: ForkServerProcess
    log: Path
    offset: int

    @classmethod
    def begin(cls, args: tuple[str, ...], log: Path, folder: Path, env: dict[str, str]) -> Command:
        offset = log.stat().st_size if log.exists() else 0
        process = _get_server().Process(target=_run_command, args=(args, str(log), str(folder), env))
        process.start()
        return cls(process, log, offset)

    @property
    def pid(self) -> int:
        """Of the command itself."""
        return self.process.pid or 0

    def wait(self, limit: float = LIMIT) -> Ended:
        """How it ended; one that does not end in time is killed and has the exit code 124."""
        self.process.join(limit)
        hung = self.process.exitcode is None
        if hung:
            self.process.kill()
            self.process.join()
        code = 124 if hung else self.process.exitcode or 0
        with open(self.log, errors="replace") as file:
            file.seek(self.offset)
            return Ended(128 - code if code < 0 else code, file.read())


@cache
def _get_server() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    return context


def _run_command(args: tuple[str, ...], log: str, folder: str, env: dict[str, str]) -> None:
    """In the fork: become the command."""
    os.setsid()
    os.chdir(folder)
    os.environ.pop("APTLAB_FAULT", None)
    os.environ.update(env)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.close(output)
    import aptlab.__main__

    sys.argv = [aptlab.__main__.__file__, *args]
    from aptlab.cli import main

    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # The end of multiprocessing's own start would lose the difference between a code and a traceback.
    raise SystemExit(code)
