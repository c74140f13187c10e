"""Signals end a run at an optimizer step, saved exactly there."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer.states import TrainerFn

from aptlab.callbacks.checkpoints import Checkpoints
from aptlab.callbacks.lookup import find_callbacks
from aptlab.faults import inject_fault
from aptlab.runs.commands import write_command_from
from aptlab.runs.signals import (
    CODES,
    SIGNALS,
    Stopped,
    leave_closed_terminal,
    list_open_signals,
    list_terminals,
    write_notice,
)

__all__ = ["CODES", "SIGNALS", "GracefulStop", "Stopped"]


class GracefulStop(Checkpoint):
    """On SIGTERM, SIGINT, SIGUSR1 or SIGHUP, to any rank: finish the optimizer step, save, and raise `Stopped`.

    A validation in progress is given up; the resumed run begins it again. A second signal kills the process at once.
    A SIGHUP that is ignored (nohup) stays so; after one that is not, nothing more is written to the closed terminal.
    With several ranks each step and each validation batch costs one all-reduce of one number on the host. Lightning's
    own SIGTERM handler, which exits with code 0 and saves nothing, is out of force from the first batch to the end.
    It is a `Checkpoint` so that Lightning calls it last: a signal during a regular save is answered right after it.
    """

    def __init__(self) -> None:
        self._received = 0
        self._group: Any = None
        self._terminals: list[int] = []

    @property
    def received(self) -> int:
        """The signal that this process has received while it trained, 0 for none."""
        return self._received

    # Handlers

    def _install(self, trainer: Trainer) -> None:
        if trainer.received_sigterm:
            self._received = self._received or signal.SIGTERM
            trainer._signal_connector.received_sigterm = False
        if threading.current_thread() is threading.main_thread():
            self._terminals = list_terminals()
            for number in list_open_signals():
                signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: Any) -> None:
        if self._received:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        self._received = number
        leave_closed_terminal(number, self._terminals)
        write_notice(f"{signal.Signals(number).name}: stopping after this step; again to stop at once")

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._received = 0
        if trainer.world_size > 1:
            self._group = dist.new_group(backend="gloo")  # a flag on the host must not wait for a device

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._install(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._install(trainer)

    # Places where the run may end

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        inject_fault("train.batch")
        if batch_idx % trainer.accumulate_grad_batches == 0:
            self._stop_if_asked(trainer)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        inject_fault("val.batch")
        if not trainer.sanity_checking and trainer.state.fn == TrainerFn.FITTING:
            self._stop_if_asked(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop_if_asked(trainer)

    def _stop_if_asked(self, trainer: Trainer) -> None:
        number = self._agreed(trainer)
        if not number:
            return
        name, step = signal.Signals(number).name, trainer.global_step
        savers = find_callbacks(trainer, Checkpoints)
        for saver in savers:
            saver.save(trainer)
        if not trainer.is_global_zero:
            raise Stopped(exit_code=0)
        last = savers[0].last if savers else None
        way = f"continue with: {write_command_from(last)}" if last else "no checkpoint was saved"
        where = "" if last is None or last.name == f"step-{step:08d}.ckpt" else f" (saved up to {last.name})"
        raise Stopped(f"stopped by {name} at step {step}{where}; {way}", CODES[name])

    def _agreed(self, trainer: Trainer) -> int:
        """The signal that any rank has received, the same on all of them; 0 for none."""
        if trainer.world_size == 1:
            return self._received
        flag = torch.tensor([self._received])
        dist.all_reduce(flag, op=dist.ReduceOp.MAX, group=self._group)
        return int(flag)
