"""Runs of the real command in forked children of a process that has loaded torch: a run takes a second or two.

What is shared with the parent are loaded modules alone: a child has its own folder, log, environment and exit code.
"""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

STEPS = 10
WORDS = ("size=debug", "trainer=debug", f"trainer.max_steps={STEPS}", "logger=csv", "device=cpu", "context=32")
WORDS += ("data.batch=4", "data.val_batches=2", "data.split.val_fraction=0.3", "callbacks.checkpoints.every=3")
WORDS += ("validate.every=5", "evals.lengths=null", "evals.sample.tokens=4")


@dataclass
class Attempt:
    """A run that was started: its folder, exit code as a shell tells it, and what it printed."""

    folder: Path
    code: int
    log: str

    @property
    def traceback(self) -> bool:
        """Whether a traceback was shown, of the command or of the logging."""
        return "Traceback" in self.log or "Logging error" in self.log

    @property
    def last_line(self) -> str:
        """The last line that was printed."""
        lines = self.log.strip().splitlines()
        return lines[-1] if lines else ""

    @property
    def status(self) -> str | None:
        """What result.json says, None where there is none."""
        path = self.folder / "result.json"
        return json.loads(path.read_text())["status"] if path.is_file() else None

    @property
    def saved(self) -> int | None:
        """The step of the newest checkpoint that is whole to the bit, None where there is none."""
        return find_saved_step(self.folder)


def find_saved_step(folder: Path) -> int | None:
    """The step of the newest checkpoint of a run that is whole to the bit, None where there is none."""
    from aptlab.checkpoint import is_valid
    from aptlab.checkpoint.find import list_checkpoints
    from aptlab.checkpoint.manifest import parse_checkpoint_step

    files = [path for path in list_checkpoints(folder / "checkpoints") if is_valid(path)]
    return parse_checkpoint_step(files[-1]) if files else None


@dataclass
class Workshop:
    """A place for the text, the token cache, the logs and the run that nothing happened to."""

    root: Path
    number: int = field(default=0)

    def __post_init__(self) -> None:
        import torch

        import aptlab.training.run  # noqa: F401 (what every child needs)

        torch.set_num_threads(1)
        source = random.Random(0)
        lines = [" ".join(f"word{source.randrange(40)}" for _ in range(40)) for _ in range(30)]
        (self.root / "texts.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
        self.whole = self.start(self.root / "whole")
        assert self.whole.code == 0, self.whole.log

    def start(self, folder: Path, *words: str, fault: str | None = None, watch: Callable[[], None] | None = None):
        """A new run in this folder; `watch` is called when the child stops itself, before it is sent on."""
        data = (f"data.files={self.root}/texts.jsonl", f"data.cache={self.root}/cache")
        return self.train(folder, *WORDS, *data, f"run_dir={folder}", *words, fault=fault, watch=watch)

    def resume(self, folder: Path) -> Attempt:
        """What the message says: go on with the run. Places are not taken from a checkpoint, so the cache is named."""
        return self.train(folder, f"ckpt={folder}", f"data.cache={self.root}/cache")

    def train(
        self, folder: Path, *words: str, fault: str | None = None, watch: Callable[[], None] | None = None
    ) -> Attempt:
        """`aptlab train` in a forked child."""
        self.number += 1
        log = self.root / f"log-{self.number}.txt"
        pid = os.fork()
        if pid == 0:
            self._be_command(log, words, fault)
        status = os.waitpid(pid, os.WUNTRACED)[1]
        while os.WIFSTOPPED(status):
            if watch:
                watch()
            os.kill(pid, signal.SIGCONT)
            status = os.waitpid(pid, os.WUNTRACED)[1]
        code = 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        return Attempt(folder, code, log.read_text(errors="replace"))

    def _be_command(self, log: Path, words: tuple[str, ...], fault: str | None) -> None:
        """The child: its streams, its environment, the command, its exit code. Does not return."""
        import sys

        from aptlab import faults
        from aptlab.cli import main

        code = 70
        try:
            handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(handle, 1)
            os.dup2(handle, 2)
            sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
            for name in ("TERM", "INT", "HUP", "USR1"):
                signal.signal(signal.Signals[f"SIG{name}"], signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            faults.reset_faults()
            os.environ.pop(faults.VARIABLE, None)
            if fault:
                os.environ[faults.VARIABLE] = fault
            code = main(["train", *words])
            sys.stdout.flush()
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(code)

    def ends_as_whole(self, folder: Path) -> bool:
        """Whether the last weights and the optimizer's state equal those of the unbroken run to the bit."""
        from tests.faults.parts import differences, file_state

        from aptlab.checkpoint import find_checkpoint

        mine, theirs = (file_state(find_checkpoint(path)) for path in (folder, self.whole.folder))
        return differences(mine, theirs) == []


def count_failures(problems: list[list[str]]) -> tuple[int, str]:
    """How many tries held, and the first failures in words."""
    failed = [", ".join(found) for found in problems if found]
    return len(problems) - len(failed), "; ".join(failed[:3])
