"""What an objective remembers of the tasks that ended: the network as it was, or its weights and how they matter."""

from __future__ import annotations

import copy
import logging
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from aptlab.callbacks.evaluating import evaluate_quietly
from aptlab.callbacks.lookup import get_datamodule
from aptlab.data.rows.order import permute_indices
from aptlab.data.tasks import TaskData, require_tasks

log = logging.getLogger("aptlab")
Weights = dict[str, Tensor]


class Consolidation(Callback):
    """Keep what the objective `remembers` where a task ends, and put it into every batch of the tasks after it.

    network  a copy, whose logits for the batch are "teacher"; for rows with a class, "kept" are the classes of the
             tasks that ended
    weights  w' and F: sum_i F_i (w_i - w'_i)^2 is "penalty"

    Both are in the checkpoint. Nothing is done for an objective that remembers nothing. ConfigError where the data are
    no tasks, or where the learner is not told their ends.

    seed  of the rows on which F is measured
    """

    def __init__(self, *, seed: int = 0) -> None:
        self.seed = seed
        self._network: nn.Module | None = None
        self._kept: Tensor | None = None
        self._anchors: Weights = {}
        self._fisher: Weights = {}
        self._loaded: Weights = {}  # the network of a checkpoint, until there is one to copy

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        check_memory_of_tasks(pl_module, get_datamodule(trainer))
        if self._loaded:
            self._network = copy_network(pl_module)
            self._network.load_state_dict(self._loaded)
            self._loaded = {}

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self._network is not None:
            batch["teacher"] = self._ask_network(trainer, pl_module, batch)
            if self._kept is not None:
                batch["kept"] = self._kept = self._kept.to(pl_module.device)
        if self._anchors:
            batch["penalty"] = self._measure_change(pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        data, objective = get_datamodule(trainer), get_objective(pl_module)
        if objective.remembers == "nothing" or (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        assert data.clock is not None
        ended = data.clock.find_ended(trainer.global_step)
        if ended is None:
            return
        if objective.remembers == "network":
            self._network = copy_network(pl_module)
            labels = data.find_labels(np.concatenate([data.list_task_rows(task) for task in range(ended + 1)]))
            self._kept = None if labels is None else torch.from_numpy(np.unique(labels))
        else:
            self._anchor_weights(trainer, pl_module, data, ended)

    def _ask_network(self, trainer: Trainer, pl_module: Any, batch: Any) -> Tensor:
        """The logits that the network of before has for a batch."""
        now, pl_module.net = pl_module.net, self._network
        try:
            with torch.no_grad(), trainer.precision_plugin.val_step_context():
                return pl_module(batch).logits
        finally:
            pl_module.net = now

    def _measure_change(self, pl_module: Any) -> Tensor:
        """sum F (w - w')^2, with its graph."""
        weights = dict(pl_module.net.named_parameters())
        terms = [
            (
                self._fisher[name].to(weights[name].device)
                * (weights[name].float() - anchor.to(weights[name].device)) ** 2
            ).sum()
            for name, anchor in self._anchors.items()
        ]
        return torch.stack(terms).sum()

    def _anchor_weights(self, trainer: Trainer, pl_module: Any, data: TaskData, ended: int) -> None:
        objective = get_objective(pl_module)
        found = measure_fisher(trainer, pl_module, data, ended, samples=objective.samples, seed=self.seed)
        before = self._fisher or {name: torch.zeros_like(value) for name, value in found.items()}
        self._fisher = {name: objective.decay * before[name].to(value.device) + value for name, value in found.items()}
        trained = list_trained(pl_module)
        self._anchors = {name: weight.detach().float().clone() for name, weight in trained.items()}

    def state_dict(self) -> dict[str, Any]:
        """Tensors by the names of the weights."""
        network = self._loaded if self._network is None else self._network.state_dict()
        return {
            "network": {name: value.detach().cpu() for name, value in network.items()},
            "kept": None if self._kept is None else self._kept.cpu(),
            "anchors": {name: value.cpu() for name, value in self._anchors.items()},
            "fisher": {name: value.cpu() for name, value in self._fisher.items()},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._loaded, self._kept = dict(state_dict["network"]), state_dict["kept"]
        self._anchors, self._fisher = dict(state_dict["anchors"]), dict(state_dict["fisher"])


def get_objective(pl_module: Any) -> Any:
    """The objective of a task."""
    return pl_module.objective


def check_memory_of_tasks(task: Any, data: Any) -> None:
    """ConfigError where an objective remembers tasks, and there are none or their ends are hidden."""
    objective = get_objective(task)
    if objective.remembers == "nothing":
        return
    name = type(objective).__name__
    require_tasks(data, f"objective: {name} remembers tasks that ended", "a scenario, such as scenario=domains")
    data.require_boundaries(f"{name} asks where a task ends", "replay=reservoir with another objective")


def copy_network(pl_module: Any) -> nn.Module:
    """The network as it is now, in eval mode and without gradients."""
    return copy.deepcopy(pl_module.net).eval().requires_grad_(False)


def list_trained(pl_module: Any) -> Weights:
    """The weights that are trained, by name."""
    return {name: weight for name, weight in pl_module.net.named_parameters() if weight.requires_grad}


def measure_fisher(trainer: Trainer, pl_module: Any, data: TaskData, task: int, *, samples: int, seed: int) -> Weights:
    """The mean over `samples` rows of a task of the squared gradient of the base objective on one row, in float32."""
    rows, weights = data.list_task_rows(task), list_trained(pl_module)
    order = permute_indices(np.arange(min(samples, len(rows))), count=len(rows), seed=seed, epoch=task)
    sums = {name: torch.zeros_like(weight, dtype=torch.float32) for name, weight in weights.items()}
    for row in rows[order]:
        batch = trainer.strategy.batch_to_device(data.fetch_rows(np.asarray([row])))
        with evaluate_quietly(trainer, pl_module), torch.enable_grad():
            loss = get_objective(pl_module).base.compute_parts(pl_module(batch), batch)["loss"]
        grads = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
        for name, grad in zip(weights, grads, strict=True):
            if grad is not None:
                sums[name] += grad.float() ** 2
    return {name: value / len(order) for name, value in sums.items()}
