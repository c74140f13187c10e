"""The one place where callbacks change gradients, and what they share."""

from __future__ import annotations

import abc
import logging
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer

from aptlab.callbacks.guard import NonFiniteGuard
from aptlab.callbacks.lookup import find_callbacks
from aptlab.callbacks.monitor import log_numbers
from aptlab.errors import ConfigError
from aptlab.limits import PositiveInt, find_limit
from aptlab.objectives import get_step_state

log = logging.getLogger("aptlab")
Weights = Mapping[str, nn.Parameter]


class GradientCallback(Callback, abc.ABC):
    """Changes the gradients of an optimizer step: once a step, after accumulation, unscaling and the sum over ranks.

    Gradients go guard -> callbacks of this kind, in their order -> `trainer.gradient_clip_val` -> optimizer. The guard
    measures and judges them as they came. A step that it skips changes no state; where its verdict is still on the
    device, `finite` says it there. The norm that is logged stays that of the gradients as they came; the trainer's
    clipping takes the norm of what these callbacks left.

    All ranks hold the same gradients, so they do the same, and the state of rank zero in a checkpoint is that of all.
    Numbers are logged as gradients/<name>/<number> every `every` optimizer steps, which waits for the device.
    ConfigError where the guard comes after a callback of this kind.
    """

    clips: ClassVar[bool] = True  # whether it bounds norms itself, so that another clipping after it is worth a line
    name: ClassVar[str]

    def __init__(self, *, every: PositiveInt) -> None:
        check_limits(("every", every, PositiveInt))
        self.every = self.log_every = every
        self.steps = 0  # optimizer steps seen, skipped ones too

    @abc.abstractmethod
    def change(self, weights: Weights, finite: Tensor, norm: Tensor) -> dict[str, Tensor]:
        """Change `weight.grad` of weights, which all have one, in place; returns what is to be logged, scalars.

        finite  bool scalar on the device: False where the step is skipped, and state must stay as it is
        norm    global norm of the gradients as they are now
        """

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        everything = find_callbacks(trainer, Callback)
        later = everything[everything.index(self) :]
        if any(isinstance(callback, NonFiniteGuard) for callback in later):
            raise ConfigError(
                f"callbacks: {self.name} comes before guard, which must judge gradients first; write it after default, "
                f"as in callbacks=[default,{self.name}]"
            )
        if self.clips and trainer.gradient_clip_val:
            log.info(
                "trainer.gradient_clip_val=%g clips the global norm after %s; with null it clips alone",
                *(trainer.gradient_clip_val, self.name),
            )

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        self.steps += 1
        weights = find_graded(pl_module)
        if not weights:  # the guard took the gradients of a bad step
            return
        state = get_step_state(pl_module)
        norm = state.grad_norm
        if norm is None or state.gradients_changed:
            norm = torch.nn.utils.get_total_norm(list_gradients(weights))
        if state.grad_norm is None:
            state.grad_norm = norm
        finite = norm.isfinite()
        if isinstance(state.skipped, Tensor):
            finite = finite & ~state.skipped.to(finite.device)
        with torch.no_grad():
            numbers = self.change(weights, finite, norm)
        state.gradients_changed = True
        if self.logs_now:
            found = {f"gradients/{self.name}/{name}": float(value) for name, value in numbers.items()}
            log_numbers(trainer, found, trainer.global_step + 1)

    @property
    def logs_now(self) -> bool:
        """Whether this step's numbers are logged."""
        return self.steps % self.log_every == 0

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.steps = state_dict["steps"]


def find_graded(module: nn.Module) -> dict[str, nn.Parameter]:
    """Weights that have a gradient, by their names; a network may have grown since the last step."""
    return {name: weight for name, weight in module.named_parameters() if weight.grad is not None}


def list_gradients(weights: Weights) -> list[Tensor]:
    """The gradients, in the order of the weights."""
    return [cast(Tensor, weight.grad) for weight in weights.values()]


def measure_norms(tensors: Sequence[Tensor]) -> Tensor:
    """The Euclidean norm of each tensor, [n]; float32 for anything narrower."""
    wide = torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32
    # one kernel for all; torch 2.13 has no public name for it but get_total_norm, which sums them up
    return torch.stack(list(torch._foreach_norm(list(tensors), 2, wide)))


def scale_gradients(weights: Weights, factors: Sequence[Tensor]) -> None:
    """Multiply every gradient by its scalar, in place."""
    torch._foreach_mul_(list_gradients(weights), list(factors))


def check_limits(*limited: tuple[str, Any, Any]) -> None:
    """ConfigError naming the first of (name, value, annotation) that is outside of the limits of its annotation."""
    for name, value, annotation in limited:
        limit = find_limit(annotation)
        if limit is not None and (problem := limit.problem(value)):
            raise ConfigError(f"{name} {problem}")
