"""Classification of rows. Legend: B rows, K classes, C dim."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from aptlab.data.tasks import TaskData
from aptlab.errors import ConfigError
from aptlab.models import RowClassifier
from aptlab.nn.width import Width
from aptlab.objectives import IGNORE, CrossEntropy, Objective
from aptlab.tasks.base import Batch, NameOption, Optim, Schedule, Task, describe_untrained_widths


class ClassificationTask(Task):
    """A row in, the logits of K classes out, trained for `objective` (cross entropy by default).

    A batch has "inputs" (images [B, channels, H, W], or tokens int64 [B, T]) and "targets", int64 [B]. Validation gives
    val/loss in nats and val/accuracy.
    """

    net: RowClassifier
    unit: ClassVar[str] = "samples"
    validation_sums: ClassVar[int] = 3  # nats, targets, right answers
    score_name: ClassVar[str] = "accuracy"

    def __init__(
        self,
        net: RowClassifier,
        *,
        optim: Optim,
        schedule: Schedule,
        objective: Objective | None = None,
        compile: bool = False,
    ) -> None:
        super().__init__(net, objective=objective or CrossEntropy(), optim=optim, schedule=schedule, compile=compile)
        self.objective.check_row_targets()

    def bind_data(self, data: object) -> None:
        """ConfigError where the data have more classes than the network, or none at all."""
        classes = getattr(data, "classes", None)  # of data of another package, which may say nothing
        if classes is None:
            raise ConfigError(
                f"task=classification needs data whose rows have a class, and {type(data).__name__} have none; choose "
                "scenario=split_digits or scenario=split_texts"
            )
        if isinstance(data, TaskData):
            check_row_kind(self.net.inputs.row_kind, data.row_kind)
        have = self.net.classes
        if classes > have:
            raise ConfigError(f"net.classes={have}, and the data have {classes}; set task.net.classes={classes}")
        self.net.bind_tasks(data.list_task_classes() if isinstance(data, TaskData) else None)

    def forward(self, batch: Batch, *, trace: bool = False, width: Width | None = None) -> Any:
        """The network's output; `width` of its nested layers."""
        given = {} if width is None else {"width": width}  # a network of another package need not know widths
        return self.net(batch["inputs"], segments=batch.get("segments"), trace=trace, **given)

    def list_warnings(self, context: int, name_option: NameOption) -> list[str]:
        """Which widths of nested layers nobody trains."""
        return describe_untrained_widths(self.net, self.objective)

    def extract_features(self, batch: Batch) -> Tensor:
        """What the head reads, [B, C], in float32."""
        return self(batch).hidden.float()

    def count_units(self, batch: Batch) -> int:
        """Rows read."""
        return len(batch["targets"])

    def sum_validation(self, output: Any, batch: Batch) -> Tensor:
        """Nats, targets and right answers."""
        targets = batch["targets"]
        right = (output.logits.argmax(-1) == targets) & (targets != IGNORE)
        return torch.cat((super().sum_validation(output, batch), right.sum().double().view(1)))

    def describe_sums(self, sums: list[float]) -> dict[str, float]:
        """loss and accuracy."""
        return {**super().describe_sums(sums), "accuracy": sums[2] / sums[1] if sums[1] else math.nan}

    def score_sums(self, sums: list[float]) -> float:
        """The accuracy."""
        return self.describe_sums(sums)["accuracy"]


def check_row_kind(reads: str | None, given: str | None) -> None:
    """ConfigError where a network reads images and the data are tokens, or the other way round."""
    if reads is not None and given is not None and reads != given:
        choose = "task=classification or task=dytox" if given == "images" else "task=text_classification or dytox_text"
        raise ConfigError(f"net.inputs reads {reads}, and the rows of these data are {given}; use {choose}")
