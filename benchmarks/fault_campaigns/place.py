"""A folder in which commands of aptlab are run, broken and compared; they start by `engine`. Two ranks start as fresh
interpreters, by Lightning.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.fault_campaigns.engine import Command, Ended, start_command

COMMON = ["size=debug", "trainer=debug", "logger=csv", "context=32", "data.batch=4", "callbacks.checkpoints.every=3"]
STEPS = 10  # of trainer=debug


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
        return start_command(*args, out=log, folder=self.root, fault=fault, env=more)

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
