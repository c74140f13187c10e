"""A rank that has stopped ends the run in time, and says so: the rule is in `aptlab.runs.heartbeat`."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Mapping
from pathlib import Path
from subprocess import Popen
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.strategies import ParallelStrategy

from aptlab.callbacks.base import RunAware, RunContext
from aptlab.checkpoint.find import FOLDER, list_checkpoints
from aptlab.checkpoint.manifest import find_checkpoint_problem
from aptlab.device.meeting import QUIET, Meeting, MeetingStore
from aptlab.errors import ConfigError
from aptlab.faults import inject_fault
from aptlab.limits import Positive, find_limit
from aptlab.runs.commands import write_command_from
from aptlab.runs.launched import has_launcher
from aptlab.runs.notice import run_briefly
from aptlab.runs.signals import CODES
from aptlab.runs.watch import START, RankWatch, WatchPlan

LOOK = 20  # the last checkpoint is verified in this part of `end`, which is a part of what is kept for the end


class Watchdog(RunAware, Checkpoint):
    """Name a rank `silent` seconds after its last sign, and have the run over by `end` seconds after it, with code 1.

    What counts as stopped is said in `aptlab.runs.heartbeat`. A line names the rank, what the others wait in, the last
    valid checkpoint and how to go on; a stopped process of the same machine is killed. A signal that asks to stop while
    a collective blocks ends the run as soon as `heartbeat.HURRY` allows, with the code of the signal. A rank that fails
    or is killed ends the others within seconds. Nothing runs where there is one rank.

    It places a few marks a step, and two threads exchange a few hundred bytes a second with rank 0. It is a
    `Checkpoint` so that Lightning calls it after the saves, which may take their time. Raises ConfigError.
    """

    def __init__(self, *, silent: Positive = 30.0, end: Positive = 60.0) -> None:
        for name, value in (("silent", silent), ("end", end)):
            limit = find_limit(Positive)
            problem = limit.problem(value) if limit else None
            if problem:
                raise ConfigError(f"{name} {problem}")
        if end <= silent:
            raise ConfigError(f"end={end:g} is not more than silent={silent:g}; use at least {2 * silent:g}")
        self.silent, self.end = silent, end
        self.folder: Path | None = None
        self.watch: RankWatch | None = None
        self._begun = False  # whether a first batch is done: it may compile

    def attach(self, run: RunContext) -> None:
        """The folder, for checkpoints and log.txt."""
        self.folder = run.folder

    def begin(self, trainer: Trainer, *, run: int = 0) -> RankWatch:
        """Watch the ranks of a trainer that is about to launch them; `run` counts the runs of this process.

        Raises ConfigError where rank 0 cannot open the port.
        """
        meeting = make_meeting(trainer, run)
        os.environ.setdefault(QUIET, "ERROR")  # for the ranks that are launched from here
        store = MeetingStore(meeting)
        if meeting.rank == 0 and not meeting.apart:
            store.open()
        first = trainer.local_rank == 0 or (trainer.local_rank == 1 and trainer.node_rank == 0)
        plan = WatchPlan(
            rank=meeting.rank,
            world=trainer.world_size,
            silent=self.silent,
            end=self.end,
            codes={signal.Signals[name]: code for name, code in CODES.items() if name in signal.Signals.__members__},
            speaks=first,
            apart=meeting.apart,
            launcher=os.getppid() if has_launcher() else 0,
            folder=self.folder,
        )
        self._begun = False
        watch = RankWatch(store, plan, way_on=self.describe_way_on, children=lambda: find_children(trainer))
        self.watch = watch
        watch.start()
        return watch

    def describe_way_on(self) -> str:
        """The last valid checkpoint and how to go on, as the end of a sentence."""
        if self.folder is None:
            return ""
        folder = self.folder
        last = run_briefly(lambda: find_last(folder), self.end / LOOK) or run_briefly(
            lambda: find_last(folder, deep=False)
        )
        if last is None:
            return "; no checkpoint was saved"
        return f"; last valid checkpoint: {last}; go on with: {write_command_from(last)}"

    # Marks

    def _mark(self, place: str, *, patient: bool = False) -> None:
        if self.watch is not None:
            self.watch.mark(place, patient=patient)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._mark(START, patient=True)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._mark(f"training batch {batch_idx} at step {trainer.global_step}", patient=not self._begun)

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Any) -> None:
        self._mark(f"the backward pass at step {trainer.global_step}", patient=not self._begun)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._begun = True

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._mark(f"validation batch {batch_idx} at step {trainer.global_step}", patient=batch_idx == 0)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._mark(f"the end of the validation at step {trainer.global_step}")

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        inject_fault("save.collect")
        self._mark(f"the save at step {trainer.global_step}", patient=True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._mark(f"the end of training at step {trainer.global_step}", patient=True)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._mark("the end after an error", patient=True)


def make_meeting(trainer: Trainer, run: int) -> Meeting:
    """Where the ranks of a trainer meet: at the address that its launcher gives, or has Lightning choose."""
    strategy = trainer.strategy
    assert isinstance(strategy, ParallelStrategy)
    assert strategy.cluster_environment is not None
    environment = strategy.cluster_environment
    return Meeting(host=environment.main_address, port=environment.main_port, rank=trainer.global_rank, run=run)


def find_children(trainer: Trainer) -> Mapping[int, Popen[Any]]:
    """The ranks that Lightning started from this process, whose watch is ours.

    Lightning 2.6 kills this process with SIGKILL within 5 s of the end of a child, before anything can be said; its
    observer is left with an empty list, which ends it.
    """
    processes = list(vars(trainer.strategy.launcher).get("procs", ())) if trainer.strategy.launcher else []
    if processes:
        release_observer()
    return {trainer.global_rank + number: process for number, process in enumerate(processes, start=1)}


def release_observer() -> None:
    """Take the children from Lightning's observer thread (`fabric/strategies/launchers/subprocess_script.py`, 2.6)."""
    for thread in threading.enumerate():
        if thread.name == "child-process-observer" and vars(thread).get("_child_processes"):
            vars(thread)["_child_processes"] = []


def find_last(folder: Path, *, deep: bool = True) -> Path | None:
    """The newest valid checkpoint of a run folder, or None; `deep` reads it whole."""
    for path in reversed(list_checkpoints(folder / FOLDER)):
        if find_checkpoint_problem(path, deep=deep) is None:
            return path
    return None
