"""Balanced fine-tuning: at the end of a task, what reads the encoder is trained on the memory alone.

Legend: N rows of the memory, K classes.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from aptlab.callbacks.growth import find_growing
from aptlab.callbacks.lookup import find_callbacks, get_datamodule
from aptlab.callbacks.replay import ReplayMemory
from aptlab.continual.rehearsal import Rehearsal
from aptlab.data.rows.order import permute_indices
from aptlab.data.tasks import TaskData
from aptlab.errors import ConfigError
from aptlab.limits import NonNegativeInt, Positive
from aptlab.models import GrowingClassifier

log = logging.getLogger("aptlab")


class BalancedTuning(Callback):
    """Train decoder, tokens and heads of a growing network on as many remembered rows of each class, encoder frozen.

    It acts where a task ends, from the second on, after the memory has taken that task's rows and before tasks are
    measured; old tokens and heads are trained as well, without distillation and divergence head, as in the official
    code of DyTox (arXiv:2111.11326; 20 epochs, rate 5e-5). These passes are no optimizer steps of the run:
    its clock, schedule and moments stay as they are, and a fresh optimizer of the same kind takes them. All ranks train
    on the same rows and come to the same weights. Nothing is done with epochs=0, in joint training, or for a network
    that does not grow. ConfigError where no samples are kept, or where losses are scaled.

    epochs  over the balanced rows; 0 = none
    lr      constant learning rate
    seed    of the rows that are left out for balance, and of their order
    """

    def __init__(self, *, epochs: NonNegativeInt = 0, lr: Positive = 5e-5, seed: int = 0) -> None:
        self.epochs, self.lr, self.seed = epochs, lr, seed

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self.epochs or find_growing(pl_module) is None:
            return
        if find_memory(trainer) is None:
            raise ConfigError(
                f"callbacks.balanced_tuning.epochs={self.epochs} trains on what is remembered, and nothing is; add "
                "replay=herding, or set callbacks.balanced_tuning.epochs=0"
            )
        if trainer.precision == "16-mixed":
            raise ConfigError(
                "callbacks.balanced_tuning takes its steps without scaled losses, which precision=16-mixed needs; use "
                "precision=bf16-mixed or 32-true"
            )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        data, net, memory = get_datamodule(trainer), find_growing(pl_module), find_memory(trainer)
        if not self.epochs or net is None or memory is None or (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        ended = data.clock.find_ended(trainer.global_step)
        if ended and net.first:
            self._tune(trainer, pl_module, net, choose_balanced(memory, data, seed=self.seed), ended)

    def _tune(self, trainer: Trainer, task: Any, net: GrowingClassifier, rows: np.ndarray, ended: int) -> None:
        """Pass `epochs` times over the rows."""
        data: TaskData = get_datamodule(trainer)
        weights, optimizer = list(net.list_tuned()), task.optim.make(net)
        for group in optimizer.param_groups:
            group["lr"] = self.lr
        log.info("balanced fine-tuning: %d epochs of %d rows", self.epochs, len(rows))
        training = net.training
        net.train()
        net.blocks.eval()
        devices = [task.device] if task.device.type == "cuda" else []
        with torch.random.fork_rng(devices), torch.enable_grad():
            torch.manual_seed(self.seed + ended)  # dropout: the same on all ranks
            for epoch in range(self.epochs):
                number = ended * self.epochs + epoch
                order = permute_indices(np.arange(len(rows)), count=len(rows), seed=self.seed, epoch=number)
                for begin in range(0, len(rows), data.batch):
                    batch = data.fetch_rows(rows[order[begin : begin + data.batch]])
                    step_on_batch(trainer, task, trainer.strategy.batch_to_device(batch), weights, optimizer)
        net.train(training)


def step_on_batch(trainer: Trainer, task: Any, batch: Any, weights: Any, optimizer: torch.optim.Optimizer) -> None:
    """One step of `weights`, outside of the trainer's loop: no hook of data-parallel training sees the gradients."""
    with trainer.precision_plugin.train_step_context():
        output = task(batch)._replace(divergence=None)
        loss = task.objective(output, batch)["loss"]
    grads = torch.autograd.grad(loss, weights, allow_unused=True)
    optimizer.zero_grad(set_to_none=True)
    for weight, grad in zip(weights, grads, strict=True):
        weight.grad = grad
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def find_memory(trainer: Trainer) -> ReplayMemory | None:
    """The run's memory, where samples are kept."""
    found = [memory for memory in find_callbacks(trainer, ReplayMemory) if isinstance(memory.rule, Rehearsal)]
    return found[0] if found else None


def choose_balanced(memory: ReplayMemory, data: TaskData, *, seed: int) -> np.ndarray:
    """Numbers of remembered rows, as many of each class as of the one with the fewest."""
    rows = np.sort(memory.memory.list_samples().rows)
    labels = data.find_labels(rows)
    assert labels is not None  # rows of a classification
    classes, counts = np.unique(labels, return_counts=True)
    chosen = []
    for label in classes.tolist():
        mine = rows[labels == label]
        order = permute_indices(np.arange(len(mine)), count=len(mine), seed=seed, epoch=label)
        chosen.append(mine[order[: counts.min()]])
    return np.concatenate(chosen)
