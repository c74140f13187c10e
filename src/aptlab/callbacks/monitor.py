"""Numbers of the run: what the loggers get, at which step."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.optim import Optimizer

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

    The loss and its parts (train/aux/balance) are means since the last line over the targets of all micro-batches and
    ranks. Sums stay on the device in between and ranks meet at a line alone, so that no step waits for a number. `lr`
    is the rate that the line's last step was taken with; `epoch` counts passes by the rows that were read. Time spent
    in validation does not count as training time, time spent in saving does.
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
        self._rate: float | None = None  # of the step that was taken last
        self._reset()

    def _reset(self) -> None:
        self._sums: dict[str, torch.Tensor] = {}  # of "loss" and the objective's other parts, times targets
        self._targets: torch.Tensor | None = None
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
        state = get_step_state(pl_module)
        targets = loss.new_tensor(state.count, dtype=torch.int64) if state.targets is None else state.targets
        for name, part in {"loss": loss, **state.parts}.items():
            # A micro-batch without a target has a mean of nothing, which is no number and weighs nothing.
            self._sums[name] = add_to(self._sums.get(name), torch.where(targets > 0, part * targets, 0.0))
        self._targets = add_to(self._targets, targets)
        self._tokens += state.count
        step = trainer.global_step
        if step == self._step:
            return
        self._step = step
        if step % self.every == 0 or step == trainer.max_steps:
            self._log(trainer, pl_module, step)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        self._rate = float(optimizer.param_groups[0]["lr"])

    def _log(self, trainer: Trainer, pl_module: LightningModule, step: int) -> None:
        state = get_step_state(pl_module)
        means = self._reduce_means(trainer)
        self._pause()
        self.tokens += self._tokens
        self.seconds += self._elapsed
        numbers = {
            "epoch": compute_epoch(trainer),
            "train/loss": means.pop("loss"),
            "lr": self._rate if self._rate is not None else trainer.optimizers[0].param_groups[0]["lr"],
            f"{self.unit}_per_second": self._tokens * trainer.world_size / max(self._elapsed, 1e-9),
        }
        if state.grad_norm is not None:
            numbers["grad_norm"] = float(state.grad_norm)
        numbers |= {f"train/{name}": mean for name, mean in means.items()}
        self.latest, self.logged = self.latest | numbers, step
        log_numbers(trainer, numbers, step)
        self._reset()

    def _reduce_means(self, trainer: Trainer) -> dict[str, float]:
        """The mean of each part over the targets since the last line, on all ranks together."""
        assert self._targets is not None
        *totals, targets = sum_over_ranks(trainer, [*self._sums.values(), self._targets])
        return {name: total / targets if targets else math.nan for name, total in zip(self._sums, totals, strict=True)}

    @property
    def counts_batches(self) -> bool:
        """Whether there are batches that no line tells of yet."""
        return self._targets is not None

    def measure_running(self) -> Numbers:
        """This rank's mean loss since the last line and its speed meanwhile, for a display; waits for the device."""
        if self._targets is None:
            return {}
        loss, now = float(self._sums["loss"]) / max(int(self._targets), 1), time.perf_counter()
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
                "sums": {name: float(total) for name, total in self._sums.items()},
                "targets": 0 if self._targets is None else int(self._targets),
                "tokens": self._tokens,
                "seconds": self._elapsed + running,
            },
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.tokens, self.seconds, self.latest = state_dict["tokens"], state_dict["seconds"], state_dict["latest"]
        self.validated, self.logged = state_dict["validated"], state_dict.get("logged")
        line = read_line(state_dict["line"])
        self._sums = {name: torch.tensor(total) for name, total in line["sums"].items()}
        self._targets = torch.tensor(line["targets"]) if line["sums"] else None
        self._tokens, self._elapsed = line["tokens"], line["seconds"]


def add_to(total: torch.Tensor | None, value: torch.Tensor) -> torch.Tensor:
    """The sum so far, which a resumed run has on the host, and one more value, on the device of the value."""
    return value if total is None else total.to(value.device) + value


def sum_over_ranks(trainer: Trainer, numbers: Sequence[torch.Tensor]) -> list[float]:
    """Scalars of this rank, each summed over all ranks; one wait for the device. All ranks must call it together."""
    device = numbers[0].device
    exact = torch.float32 if device.type == "mps" else torch.float64  # counts of tokens are past what float32 can hold
    sums = torch.stack([number.to(device, exact) for number in numbers])
    if trainer.world_size > 1:
        sums = trainer.strategy.reduce(sums, reduce_op="sum")
    return sums.tolist()


def read_line(line: dict[str, Any]) -> dict[str, Any]:
    """The line of a checkpoint that is not full yet; until targets were counted, it held sums over micro-batches."""
    if "sums" in line:
        return line
    sums = {"loss": line["loss"], **line.get("parts", {})} if line["loss"] is not None else {}
    weight = line["tokens"] / max(line["batches"], 1)
    return {**line, "sums": {name: total * weight for name, total in sums.items()}, "targets": line["tokens"]}


@runtime_checkable
class CountsEpochs(Protocol):
    """A data module that knows how many micro-batches it gave, and how many passes over its rows those are."""

    def epoch_of(self, micro_batches: int) -> float: ...
    def state_dict(self) -> dict[str, Any]: ...


def compute_epoch(trainer: Trainer) -> float:
    """Passes over the training data so far, of a data module that can tell.

    It counts the micro-batches itself: Lightning's number is as if the run had always accumulated as it does now.
    """
    data = get_datamodule(trainer)
    return data.epoch_of(data.state_dict()["micro_batches"]) if isinstance(data, CountsEpochs) else 0.0
