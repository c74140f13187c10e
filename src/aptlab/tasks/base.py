"""What every task is: a network, an objective, an optimizer with its schedule, and the state of the current step."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, cast, runtime_checkable

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from aptlab.errors import ConfigError
from aptlab.nn.width import FULL
from aptlab.objectives import Objective, StepState
from aptlab.optim.base import Optim, Schedule
from aptlab.optim.rates import StepRates

NameOption = Callable[[str, type], str]
Batch = Mapping[str, Tensor]


class Task(LightningModule, ABC):
    """A network that is trained for an objective, by batches that are dicts of tensors.

    A task says how its network reads a batch (`forward`) and how much a batch is (`count_units`); training, weighted
    validation, clipping, optimizer and schedule are here. `step_state` is what callbacks read and write: the norm of
    the gradients, whether the step was skipped, and whether they want traces or losses by row.

    Raises ConfigError where there is no number of steps for the schedule, or where the objective has weights of its
    own, which no optimizer would train.
    """

    unit: ClassVar[str] = "samples"  # what `count_units` counts, as in samples_per_second
    validation_sums: ClassVar[int] = 2  # numbers that a validation adds up: losses, targets, and more of a task's own
    score_name: ClassVar[str] = "-loss"  # what `score_sums` gives

    def __init__(
        self, net: nn.Module, *, objective: Objective, optim: Optim, schedule: Schedule, compile: bool = False
    ) -> None:
        super().__init__()
        self.net, self.objective = net, objective
        self.optim, self.schedule = optim, schedule
        self.compile_net = compile
        self.step_state = StepState(unit=self.unit)
        objective.check_network(find_widths(net))
        self._sums = self._make_sums()

    @abstractmethod
    def forward(self, batch: Batch, *, trace: bool = False) -> Any:
        """The network's output for a batch, with what the objective needs; `trace` asks layers for statistics."""

    @abstractmethod
    def count_units(self, batch: Batch) -> int:
        """How many of `unit` a batch holds; the host knows it, so no step waits for it."""

    # What a run asks before it begins

    def bind_data(self, data: object) -> None:
        """Take from the data what the task's numbers need; called once, before training."""

    def list_warnings(self, context: int, name_option: NameOption) -> list[str]:
        """What to say before training at this context; nothing unless the network has limits.

        name_option(group, class) is the option that builds a class, for messages.
        """
        return []

    def estimate_training_flops(self, context: int) -> int:
        """FLOPs of a training step per unit; 0 where they are not known."""
        return 0

    def count_part_parameters(self) -> list[tuple[str, int]]:
        """Parameters of each part of the network, for the summary of a run."""
        sizes = ((name, count_parameters(part)) for name, part in self.net.named_children())
        return [(name, size) for name, size in sizes if size]

    # Training

    def setup(self, stage: str) -> None:
        # Only the inner network: a compiled LightningModule cannot log.
        if self.compile_net:
            self.net.compile()

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """The loss of a micro-batch; everything else about it goes into `step_state`."""
        state = self.step_state
        trace, rows = state.begin_batch()
        output, parts = self.objective.compute_step(TaskPasses(self, batch, trace), batch, rows=rows)
        loss, state.rows = parts.pop("loss"), parts.pop("rows", None)
        state.loss, state.count = loss.detach(), self.count_units(batch)
        state.targets = self.objective.count_targets(batch)
        state.parts = {name: part.detach() for name, part in parts.items()}
        state.traces = getattr(output, "traces", None) or {}  # a network of another package has none
        state.keep_output(output)
        return {"loss": loss}

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the global norm, also of fused optimizers (findings/lightning_bf16_clip_fused.sh).

        A callback may have measured `step_state.grad_norm` already; it is not computed twice, unless a callback changed
        the gradients since then.
        """
        if not gradient_clip_val:
            return
        weights = [weight for group in optimizer.param_groups for weight in group["params"] if weight.grad is not None]
        if gradient_clip_algorithm == "value":
            torch.nn.utils.clip_grad_value_(weights, gradient_clip_val)
            return
        state = self.step_state
        norm = state.grad_norm
        if norm is None or state.gradients_changed:
            norm = torch.nn.utils.get_total_norm([cast(Tensor, weight.grad) for weight in weights])
        if state.grad_norm is None:
            state.grad_norm = norm
        torch.nn.utils.clip_grads_with_norm_(weights, gradient_clip_val, norm)

    # Validation

    def on_validation_epoch_start(self) -> None:
        self._sums = self._make_sums().to(self.device)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        passes = TaskPasses(self, batch)
        for row, width in enumerate(self.list_validated()):
            self._sums[row] += self.sum_validation(passes.run(width=width), batch)

    def on_validation_epoch_end(self) -> None:
        """Weighted by targets over all ranks: a short batch does not count like a full one."""
        sums = cast(Tensor, self.all_gather(self._sums))
        numbers = {}
        for width, row in zip(self.list_validated(), sums.view(-1, *self._sums.shape).sum(0).tolist(), strict=True):
            found, mark = self.describe_sums(row), "" if width is None else f"@{width:g}"
            numbers |= {f"val/{name}{mark}": torch.tensor(value) for name, value in found.items()}
        # Equal on all ranks by now: max keeps them to the bit, and Lightning has nothing to recommend.
        self.log_dict(numbers, logger=False, sync_dist=True, reduce_fx="max")

    def list_validated(self) -> tuple[float | None, ...]:
        """Widths of a nested network that are validated: None = as it is, and smaller ones that the objective trains.

        Their numbers are val/loss and val/loss@0.5.
        """
        widths = self.objective.list_widths(find_widths(self.net))
        return (None, *(width for width in widths if width != FULL))

    def _make_sums(self) -> Tensor:
        return torch.zeros(len(self.list_validated()), self.validation_sums, dtype=torch.float64)

    def sum_validation(self, output: Any, batch: Batch) -> Tensor:
        """What a batch adds to the sums of a validation, float64 [validation_sums]: losses and targets first."""
        return self.objective.sum_losses(output, batch)

    def describe_sums(self, sums: list[float]) -> dict[str, float]:
        """The sums of all batches and ranks in all the ways they are logged, the mean `loss` first."""
        return {"loss": sums[0] / sums[1] if sums[1] else math.nan}

    def score_sums(self, sums: list[float]) -> float:
        """The sums of a validation as one number that is larger where the network is better: minus the mean loss."""
        return -self.describe_sums(sums)["loss"]

    def extract_features(self, batch: Batch) -> Tensor:
        """One vector for each row of a batch, [B, D], for methods that choose rows by them."""
        raise ConfigError(
            f"task: {type(self).__name__} has no features of its rows; write extract_features, or do without what "
            "needs them"
        )

    def configure_optimizers(self) -> Any:
        total = self.trainer.max_steps
        if total < 1:
            raise ConfigError(
                f"the trainer has max_steps={total}, and a schedule needs their number; set trainer.max_steps=1 or more"
            )
        if any(weight.requires_grad for weight in self.objective.parameters()):
            raise ConfigError(
                f"objective: {type(self.objective).__name__} has weights of its own, which no optimizer would train; "
                "make them a part of the network"
            )
        optimizer = self.optim.make(self.net, unscaled=self.trainer.precision != "16-mixed")
        scheduler = StepRates(optimizer, lambda step: self.schedule.factor(step, total))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


@dataclass(frozen=True)
class TaskPasses:
    """The passes of a task's network over one micro-batch, which its objective asks for."""

    task: Task
    batch: Batch
    trace: bool = False

    @property
    def step(self) -> int:
        """Optimizer steps taken."""
        return self.task.global_step

    @property
    def widths(self) -> tuple[float, ...]:
        """Widths of nested layers, largest first."""
        return find_widths(self.task.net)

    def run(self, *, width: float | None = None) -> Any:
        """The network's output, at a width where one is given."""
        given = {} if width is None else {"width": width}  # a task of another package need not know widths
        return self.task(self.batch, trace=self.trace, **given)


@runtime_checkable
class HasWidths(Protocol):
    """A network with nested layers; `aptlab.models.Decoder` is one."""

    @property
    def widths(self) -> tuple[float, ...]: ...


def find_widths(net: nn.Module) -> tuple[float, ...]:
    """Widths that the network can work with, largest first; (1.0,) where it knows of none."""
    return net.widths if isinstance(net, HasWidths) else (FULL,)


def describe_untrained_widths(net: nn.Module, objective: Objective) -> list[str]:
    """A line about smaller widths of a nested network that the objective does not train; none where it does."""
    widths = find_widths(net)
    if len(widths) < 2 or objective.list_widths(widths):
        return []
    smaller = ", ".join(f"{width:g}" for width in widths[1:])
    return [f"the widths {smaller} of nested layers are not trained; objective=elastic trains them"]


def count_parameters(module: nn.Module) -> int:
    """Numbers in all weights, frozen ones too; a shared weight counts once."""
    return sum(weight.numel() for weight in module.parameters())


@runtime_checkable
class HasTargetContext(Protocol):
    """Data that knows how many tokens the target of a row has, 0 where rows are text."""

    @property
    def target_context(self) -> int: ...


def find_target_context(data: object) -> int:
    """Tokens of the target of a row, where rows are pairs of a source and a target; else 0."""
    return data.target_context if isinstance(data, HasTargetContext) else 0
