"""What a training step leaves for callbacks, and what callbacks want of it. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from aptlab.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class StepState:
    """The state of the micro-batch that is being trained on: a task owns one, its callbacks read and write it.

    loss         of the micro-batch, detached, before it is divided by `accumulate_grad_batches`
    parts        the named parts of the loss, detached scalars, such as "aux/balance"
    rows         float64 [2, B], each row's sum of losses and number of targets; None where `wants_rows` is off
    traces       statistics of layers by "layer/site"; empty where `wants_traces` is off and no layer learns from them
    count, unit  what the micro-batch is made of, such as 4096 tokens
    targets      what the loss is a mean over, on the device; None: `count` of them
    grad_norm    global norm of the gradients before clipping; None until something has measured it
    gradients_changed  whether a callback changed the gradients since then, so that clipping measures them again
    skipped      whether the last optimizer step was skipped: a bool, or a device tensor that becomes one when read
    output       what the network gave, with its graph; None where `wants_output` is off
    wants_*      set to True by callbacks in on_train_batch_start, each time; all cost time or memory
    """

    loss: Tensor | None = None
    parts: Mapping[str, Tensor] = field(default_factory=dict)
    rows: Tensor | None = None
    traces: Mapping[str, Any] = field(default_factory=dict)
    count: int = 0
    targets: Tensor | None = None
    unit: str = "tokens"
    grad_norm: Tensor | None = None
    gradients_changed: bool = False
    skipped: bool | Tensor = False
    wants_traces: bool = False
    wants_rows: bool = False
    wants_output: bool = False
    output: Any = None

    def begin_batch(self) -> tuple[bool, bool]:
        """Forget the micro-batch before; returns what is wanted of this one: traces, rows.

        Wishes hold for one batch, so that no callback takes back what another one wants. `skipped` stays.
        """
        wishes = self.wants_traces, self.wants_rows
        self.wants_traces = self.wants_rows = False
        self.loss, self.rows, self.grad_norm, self.targets = None, None, None, None
        self.parts, self.traces, self.count, self.output = {}, {}, 0, None
        self.gradients_changed = False
        return wishes

    def keep_output(self, output: Any) -> None:
        """Keep what the network gave, where that is wanted of this micro-batch."""
        self.output = output if self.wants_output else None
        self.wants_output = False


@runtime_checkable
class HasStepState(Protocol):
    """A LightningModule with a step state; `aptlab.tasks.Task` is one."""

    step_state: StepState


def get_step_state(module: object) -> StepState:
    """The step state of a task; ConfigError for a module that has none."""
    if not isinstance(module, HasStepState):
        raise ConfigError(
            f"task: {type(module).__name__} has no step_state, through which callbacks and the task speak; derive it "
            "from aptlab.tasks.Task, or set self.step_state = StepState() and fill it in training_step"
        )
    return module.step_state
