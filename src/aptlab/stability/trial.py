"""One training of the grid, from its words to its numbers."""

from __future__ import annotations

import logging
import math
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from aptlab.config import build
from aptlab.errors import TrainingError
from aptlab.stability.probe import Numbers, StabilityProbe, keep_finite
from aptlab.stability.settings import Trial
from aptlab.stability.stresses import StressCallback
from aptlab.tasks import Task
from aptlab.tasks.base import count_parameters
from aptlab.training.assemble import SCALED, assemble_parts
from aptlab.training.plan import plan_training
from aptlab.training.state import TrainParts

# Callbacks of a run that has a folder, a screen or other ranks; a trial has none of them.
LEFT_OUT = ("checkpoints", "progress", "watchdog", "stop", "same_config", "tasks", "rounding")
log = logging.getLogger("aptlab")


def run_trial(trial: Trial, rate: float) -> dict[str, Any]:
    """Train once and measure: what the probe saw, the validation loss at the end, parameters and FLOPs a token.

    The loss is measured by the same function that was trained. It is None where the training broke off: after several
    steps in a row that are not finite the guard ends it, as it ends any run.
    """
    parts = assemble_parts(plan_training(trial.list_words(rate)))
    probe, final = StabilityProbe(), FinalLoss(parts.data)
    steps = parts.trainer_args["max_steps"]
    trainer = make_trainer(parts, [StressCallback(trial.stress, every=max(1, min(50, steps // 5)))], [probe, final])
    try:
        trainer.fit(parts.task, datamodule=parts.data)
    except TrainingError as error:
        log.info("%s: %s", trial.key, error)
    scaled = parts.trainer_args["precision"] == SCALED
    numbers: Numbers = probe.summarize(steps, scaled=scaled)
    numbers["final"] = final.loss
    task, context = parts.task, int(parts.config.cfg.context)
    size = {"parameters": count_parameters(task.net), "flops": task.estimate_training_flops(context)}
    return {**numbers, **size, "steps": steps, "rate": rate * trial.multiple}


class FinalLoss(Callback):
    """The validation loss where training ends, measured before Lightning takes the network off its device."""

    def __init__(self, data: Any) -> None:
        self.data = data
        self.loss: float | None = None

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Task)
        self.loss = keep_finite(measure_loss(pl_module, self.data, trainer))


def make_trainer(parts: TrainParts, first: list[Callback], last: list[Callback]) -> Trainer:
    """A trainer with the method's callbacks between `first` and `last`, that writes nothing and validates nothing."""
    nodes = parts.config.cfg.callbacks
    named = [build(node) for name, node in nodes.items() if node is not None and name not in LEFT_OUT]
    settings = {
        **parts.trainer_args,
        "limit_val_batches": 0,
        "num_sanity_val_steps": 0,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "check_val_every_n_epoch": None,
        "min_epochs": 0,
        "use_distributed_sampler": False,
    }
    return build(parts.config.cfg.trainer)(**settings, callbacks=[*first, *named, *last])


@torch.no_grad()
def measure_loss(task: Task, data: Any, trainer: Trainer) -> float:
    """Mean validation loss over targets, in the precision of the training."""
    device = next(iter(parameter.device for parameter in task.parameters()))
    task.eval()
    total = torch.zeros(2, dtype=torch.float64, device=device)
    for batch in data.val_dataloader():
        placed = {name: value.to(device) for name, value in batch.items()}
        with trainer.precision_plugin.forward_context():
            total += task.objective.sum_losses(task(placed), placed).to(device)
    loss, targets = total.tolist()
    return loss / targets if targets else math.nan
