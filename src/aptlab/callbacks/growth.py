"""Growth: a network that learns classes task by task is told where a task begins."""

from __future__ import annotations

import logging
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch.optim import Optimizer

from aptlab.callbacks.lookup import get_datamodule
from aptlab.data.tasks import require_tasks
from aptlab.models import GrowingClassifier

log = logging.getLogger("aptlab")


class TaskGrowth(Callback):
    """Call `add_task` of a growing network before the first batch of each task, and hold still what is frozen.

    Which tasks are known is in the network's weights. With scenario.joint=true all of them are from the start, and
    none is frozen. Gradients of frozen weights are dropped before they are measured or clipped, so this callback comes
    before those that read gradients. Nothing is done for any other network. ConfigError as `check_growth`.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data = get_datamodule(trainer)
        check_growth(pl_module, data)
        net = find_growing(pl_module)
        if net is not None and data.scenario.joint:
            net.set_known(len(net.sizes), first=0)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        net = find_growing(pl_module)
        if net is None:
            return
        data = get_datamodule(trainer)
        task = data.clock.find_task(data.count_micro_batches())
        while net.known <= task:
            net.add_task()
            log.info("task %s begins: %d of %d are known", data.task_names[net.known - 1], net.known, len(net.sizes))

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        net = find_growing(pl_module)
        for weight in net.list_frozen() if net is not None else ():
            weight.grad = None  # a zero would still let decay and momentum move it


def find_growing(task: Any) -> GrowingClassifier | None:
    """The network of a task, if it grows."""
    net = getattr(task, "net", None)  # a LightningModule of another package has none
    return net if isinstance(net, GrowingClassifier) else None


def check_growth(task: Any, data: Any) -> None:
    """ConfigError where a network grows, and there are no tasks or their ends are hidden."""
    net = find_growing(task)
    if net is None:
        return
    name = type(net).__name__
    require_tasks(data, f"net: {name} learns classes in tasks", "scenario=split_digits")
    data.require_boundaries(f"{name} asks where a task begins")
