"""A loss or gradient that is no finite number must not reach the weights."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from aptlab.callbacks.checkpoints import Checkpoints
from aptlab.callbacks.lookup import find_callbacks
from aptlab.callbacks.monitor import log_numbers
from aptlab.callbacks.progress import find_monitor
from aptlab.callbacks.saving import advise_good_checkpoint
from aptlab.checkpoint.finite import find_nonfinite, walk_tensors
from aptlab.errors import ConfigError, TrainingError
from aptlab.limits import PositiveInt, find_limit
from aptlab.objectives import get_step_state
from aptlab.shown import count_nouns

log = logging.getLogger("aptlab")


@dataclass
class PendingStep:
    """One optimizer step: number (1-based), sum of its micro-batch losses, their sample ids, and whether it is bad."""

    step: int
    loss: Tensor
    ids: list[Tensor]
    bad: Tensor
    counts: bool


class NonFiniteGuard(Callback):
    """Skip an optimizer step whose loss or gradient holds NaN or infinity: weights and optimizer state keep every bit.

    The step counts (schedule, data and step number go on), `skipped_steps` is logged, and the log names the samples.
    `patience` skipped steps in a row raise TrainingError. All ranks skip together. The callback puts the global norm
    of the gradients, before clipping, into the task's `step_state.grad_norm`, and whether the step is skipped into
    `step_state.skipped` (a bool, or a device tensor that becomes one when read).

    With a fused optimizer on CUDA no step waits for the device: the kernel itself skips by its `found_inf`, and the
    flags are read every `every` steps, so that `patience` may end a run up to `every` steps late. With a loss scaler
    (16-mixed) an infinite gradient under a finite loss is how the scale is found: skipped, but not counted to patience.
    """

    def __init__(self, *, patience: PositiveInt = 5, every: PositiveInt = 10) -> None:
        for name, value in (("patience", patience), ("every", every)):
            limit = find_limit(PositiveInt)
            problem = limit.problem(value) if limit else None
            if problem:
                raise ConfigError(f"{name} {problem}")
        self.patience, self.every = patience, every
        self.skipped_steps = 0
        self._row = 0
        self._last_finite: float | None = None
        self._loss: Tensor | None = None
        self._ids: list[Tensor] = []
        self._waiting: list[PendingStep] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._loss, self._ids, self._waiting = None, [], []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx % trainer.accumulate_grad_batches == 0:
            self._loss, self._ids = None, []
        if isinstance(batch, dict) and "ids" in batch:
            self._ids.append(batch["ids"])

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        value = loss.detach().float()
        self._loss = value if self._loss is None else self._loss + value

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        norm = torch.nn.utils.get_total_norm([weight.grad for weight in weights if weight.grad is not None])
        loss = norm.new_zeros(()) if self._loss is None else self._loss.to(norm.device)
        bad = ~(torch.isfinite(norm) & torch.isfinite(loss))
        if trainer.world_size > 1:
            flag = bad.float()
            dist.all_reduce(flag, op=dist.ReduceOp.MAX)
            bad = flag > 0
        state = get_step_state(pl_module)
        state.grad_norm = norm
        scaled = getattr(trainer.precision_plugin, "scaler", None) is not None
        window = PendingStep(trainer.global_step + 1, loss, self._ids, bad, counts=not scaled)
        self._waiting.append(window)
        if supports_found_inf(optimizer):
            optimizer.found_inf = bad.float()  # type: ignore[attr-defined]
            state.skipped = bad
        else:
            state.skipped = bool(bad)
            if state.skipped:
                optimizer.zero_grad(set_to_none=True)
            self._waiting[-1].bad = torch.tensor(state.skipped)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._waiting and (self._waiting[-1].bad.device.type == "cpu" or len(self._waiting) >= self.every):
            self._read(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._read(trainer)

    def _read(self, trainer: Trainer | None) -> None:
        """Bring the flags to the host, count, log, and lose patience."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        bad = torch.stack([window.bad for window in waiting]).tolist()
        losses = torch.stack([window.loss for window in waiting]).tolist()
        for window, skipped, loss in zip(waiting, bad, losses):
            finite = loss == loss and abs(loss) != float("inf")
            if not skipped:
                self._row, self._last_finite = 0, loss
                continue
            self.skipped_steps += 1
            self._row += int(window.counts or not finite)
            self._report(window, loss, finite, trainer)
            if self._row >= self.patience and trainer is not None:
                self._give_up(window, trainer)

    def _report(self, window: PendingStep, loss: float, finite: bool, trainer: Trainer | None) -> None:
        what = "gradient" if finite else f"loss ({loss})"
        log.warning(
            "step %d skipped: the %s is not finite; samples %s", window.step, what, format_sample_ids(window.ids)
        )
        if trainer is not None:
            numbers = {"skipped_steps": float(self.skipped_steps)}
            find_monitor(trainer).latest.update(numbers)
            log_numbers(trainer, numbers, window.step)

    def _give_up(self, window: PendingStep, trainer: Trainer) -> None:
        last = "none was finite" if self._last_finite is None else f"the last finite one was {self._last_finite:.4g}"
        module = trainer.lightning_module
        poisoned = find_nonfinite(walk_tensors(dict(module.named_parameters())))
        weights = (
            f"the weights themselves are not finite ({poisoned[0]} and {len(poisoned) - 1} more), so they are not saved"
            if poisoned
            else "the weights are those before"
        )
        savers = [saver for saver in find_callbacks(trainer, Checkpoints) if saver.folder is not None]
        way = (
            advise_good_checkpoint(savers[0].directory) if savers else "no checkpoint is saved; start with a lower rate"
        )
        raise TrainingError(
            f"{count_nouns(self._row, 'step')} in a row had a loss or gradient that is not finite, the last one step "
            f"{window.step} with samples {format_sample_ids(window.ids)}; of the losses {last}; {weights}; {way}, or "
            "look at these samples"
        )

    def state_dict(self) -> dict[str, Any]:
        self._read(None)
        return {"skipped_steps": self.skipped_steps, "row": self._row, "last_finite": self._last_finite}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.skipped_steps, self._row = state_dict["skipped_steps"], state_dict["row"]
        self._last_finite = state_dict["last_finite"]


def supports_found_inf(optimizer: Optimizer) -> bool:
    """Whether the optimizer's kernel leaves everything alone when `found_inf` is 1: torch's fused ones on CUDA."""
    groups = optimizer.param_groups
    return all(group.get("fused") and all(weight.is_cuda for weight in group["params"]) for group in groups)


def format_sample_ids(ids: list[Tensor], most: int = 32) -> str:
    """Sample ids of all micro-batches of this rank, in order."""
    numbers = [number for part in ids for number in part.tolist()]
    return (", ".join(map(str, numbers[:most])) + (" …" if len(numbers) > most else "")) or "unknown"
