"""Signals end a run at an optimizer step, saved exactly there."""

from __future__ import annotations

import logging
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
from aptlab.errors import AptlabError
from aptlab.faults import inject_fault

log = logging.getLogger("aptlab")
# exit codes as a shell reports a death by the signal; SIGUSR1 is the notice of a preemption, SIGTERM ahead of time
CODES = {"SIGTERM": 143, "SIGINT": 130, "SIGUSR1": 143}
SIGNALS = [signal.Signals[name] for name in CODES if hasattr(signal, name)]


class Stopped(AptlabError):
    """The run was asked to stop and did, with everything saved. `exit_code` is 128 + the signal (143 for SIGUSR1).

    Ranks other than zero leave without a word and with code 0: launchers kill rank zero when another one "fails".
    """

    def __init__(self, message: str = "", exit_code: int = 143) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class GracefulStop(Checkpoint):
    """On SIGTERM, SIGINT or SIGUSR1, to any rank: finish the optimizer step, save, and raise `Stopped`.

    A validation in progress is given up; the resumed run begins it again. A second signal kills the process at once.
    With several ranks each step and each validation batch costs one all-reduce of one number on the host. Lightning's
    own SIGTERM handler, which exits with code 0 and saves nothing, is out of force from the first batch to the end.
    It is a `Checkpoint` so that Lightning calls it last: a signal during a regular save is answered right after it.
    """

    def __init__(self) -> None:
        self._received = 0
        self._group: Any = None

    # Handlers

    def _install(self, trainer: Trainer) -> None:
        if trainer.received_sigterm:
            self._received = self._received or signal.SIGTERM
            trainer._signal_connector.received_sigterm = False
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: Any) -> None:
        if self._received:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        self._received = number
        name = signal.Signals(number).name
        os.write(2, f"{name}: stopping after this step; again to stop at once\n".encode())

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
        way = f"continue with: aptlab train ckpt={last.parent.parent}" if last else "no checkpoint was saved"
        where = "" if last is None or last.name == f"step-{step:08d}.ckpt" else f" (saved up to {last.name})"
        raise Stopped(f"stopped by {name} at step {step}{where}; {way}", CODES[name])

    def _agreed(self, trainer: Trainer) -> int:
        """The signal that any rank has received, the same on all of them; 0 for none."""
        if trainer.world_size == 1:
            return self._received
        flag = torch.tensor([self._received])
        dist.all_reduce(flag, op=dist.ReduceOp.MAX, group=self._group)
        return int(flag)
