"""Numbers of the run: what the loggers get, at which step."""

from __future__ import annotations

import time
from typing import Any, Protocol, runtime_checkable

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from aptlab.callbacks.lookup import get_datamodule
from aptlab.limits import PositiveInt
from aptlab.objectives import get_step_state

Numbers = dict[str, float]


def log_numbers(trainer: Trainer, numbers: Numbers, step: int) -> None:
    """Hand numbers to every logger of rank zero."""
    if trainer.is_global_zero:
        for logger in trainer.loggers:
            logger.log_metrics(numbers, step=step)


class Monitor(Callback):
    """Log loss, its parts, learning rate, gradient norm, speed and position every `every` optimizer steps.

    The loss and its parts (train/aux/balance) are means since the last line, kept on the device in between, so that no
    step waits for a number. Time spent in validation does not count as training time, time spent in saving does.
    """

    def __init__(self, *, every: PositiveInt = 10) -> None:
        self.every = every
        self.tokens = 0  # units of this rank's batches since the run began, for the speed over the whole run
        self.unit = "tokens"  # what the task counts
        self.seconds = 0.0
        self.latest: Numbers = {}
        self.validated: int | None = None  # step of the last validation
        self.logged: int | None = None  # step of the last line
        self._step = -1
        self._reset()

    def _reset(self) -> None:
        self._loss: torch.Tensor | None = None
        self._parts: dict[str, torch.Tensor] = {}  # sums of the objective's other parts, by name
        self._batches = 0
        self._tokens = 0
        self._elapsed = 0.0
        self._since: float | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._step, self.unit = trainer.global_step, get_step_state(pl_module).unit

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self._since is None:
            self._since = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = outputs["loss"].detach() * trainer.accumulate_grad_batches  # Lightning divides it for the backward pass
        self._loss = loss if self._loss is None else self._loss.to(loss.device) + loss
        state = get_step_state(pl_module)
        for name, part in state.parts.items():
            self._parts[name] = part if name not in self._parts else self._parts[name].to(part.device) + part
        self._batches += 1
        self._tokens += state.count
        step = trainer.global_step
        if step == self._step:
            return
        self._step = step
        if step % self.every == 0 or step == trainer.max_steps:
            self._log(trainer, pl_module, step)

    def _log(self, trainer: Trainer, pl_module: LightningModule, step: int) -> None:
        assert self._loss is not None
        train_loss, state = float(self._loss) / self._batches, get_step_state(pl_module)
        self._pause()
        self.tokens += self._tokens
        self.seconds += self._elapsed
        numbers = {
            "epoch": compute_epoch(trainer),
            "train/loss": train_loss,
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            f"{self.unit}_per_second": self._tokens * trainer.world_size / max(self._elapsed, 1e-9),
        }
        if state.grad_norm is not None:
            numbers["grad_norm"] = float(state.grad_norm)
        numbers |= {f"train/{name}": float(part) / self._batches for name, part in self._parts.items()}
        self.latest, self.logged = self.latest | numbers, step
        log_numbers(trainer, numbers, step)
        self._reset()

    @property
    def counts_batches(self) -> bool:
        """Whether there are batches that no line tells of yet."""
        return self._loss is not None

    def measure_running(self) -> Numbers:
        """This rank's mean loss since the last line and its speed meanwhile, for a display; waits for the device."""
        if self._loss is None:
            return {}
        loss, now = float(self._loss) / self._batches, time.perf_counter()
        seconds = self._elapsed + (0.0 if self._since is None else now - self._since)
        return {"train/loss": loss, f"{self.unit}_per_second": self._tokens / max(seconds, 1e-9)}

    def _pause(self) -> None:
        if self._since is not None:
            self._elapsed += time.perf_counter() - self._since
            self._since = None

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._pause()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        numbers = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
        self.latest, self.validated = self.latest | numbers, trainer.global_step
        log_numbers(trainer, numbers, trainer.global_step)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._pause()

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers; those of the line that is not full yet too, so that a resumed run logs the same lines."""
        running = 0.0 if self._since is None else time.perf_counter() - self._since
        return {
            "tokens": self.tokens,
            "seconds": self.seconds,
            "latest": self.latest,
            "validated": self.validated,
            "logged": self.logged,
            "line": {
                "loss": None if self._loss is None else float(self._loss),
                "parts": {name: float(part) for name, part in self._parts.items()},
                "batches": self._batches,
                "tokens": self._tokens,
                "seconds": self._elapsed + running,
            },
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.tokens, self.seconds, self.latest = state_dict["tokens"], state_dict["seconds"], state_dict["latest"]
        self.validated, self.logged = state_dict["validated"], state_dict.get("logged")
        line = state_dict["line"]
        self._loss = None if line["loss"] is None else torch.tensor(line["loss"])
        self._parts = {name: torch.tensor(part) for name, part in line.get("parts", {}).items()}
        self._batches, self._tokens, self._elapsed = line["batches"], line["tokens"], line["seconds"]


@runtime_checkable
class CountsEpochs(Protocol):
    """A data module that knows how many passes over its rows some micro-batches are."""

    def epoch_of(self, micro_batches: int) -> float: ...


def compute_epoch(trainer: Trainer) -> float:
    """Passes over the training data so far, of a data module that can tell."""
    data = get_datamodule(trainer)
    progress: Any = trainer.fit_loop.epoch_loop.batch_progress
    return data.epoch_of(progress.total.processed) if isinstance(data, CountsEpochs) else 0.0
