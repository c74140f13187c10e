"""Weights in sixteen bits: how many of a step's changes are rounded away."""

from __future__ import annotations

import logging
from typing import Any, Protocol, TypeGuard

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn
from torch.optim import Optimizer

from aptlab.errors import ConfigError
from aptlab.limits import Fraction, find_limit
from aptlab.optim.probe import OptimizerRule, copy_corners

log = logging.getLogger("aptlab")
LOW = (torch.bfloat16, torch.float16)


class OwnsOptimizer(Protocol):
    """A task that says how the optimizer of its network is made; `aptlab.tasks.Task` is one."""

    optim: OptimizerRule
    net: nn.Module


def owns_optimizer(module: Any) -> TypeGuard[OwnsOptimizer]:
    """Whether it is one. From Python 3.12 on, isinstance with a protocol does not see the submodules of a module."""
    return hasattr(module, "optim") and isinstance(getattr(module, "net", None), nn.Module)


class RoundedSteps(Callback):
    """Warn where weights of sixteen bits are too coarse for the learning rate, at the first optimizer step.

    A bfloat16 keeps 8 bits of a number, so a change below about 1/256 of a weight leaves it as it is. The optimizer
    takes one step at its peak rate on a small copy of the weights and their gradients, in the weights' own type and in
    float32; where less than `share` of the weights that move in float32 also move in the low one, one line says so.
    Costs one step on at most 64 x 64 numbers of each weight, once; nothing where weights are float32, as in bf16-mixed.
    Raises ConfigError for a share outside of [0, 1].
    """

    def __init__(self, *, share: Fraction = 0.5) -> None:
        limit = find_limit(Fraction)
        if limit and (problem := limit.problem(share)):
            raise ConfigError(f"share {problem}")
        self.share = share
        self._seen = False

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        if self._seen:
            return
        self._seen = True
        types = {weight.dtype for weight in pl_module.parameters() if weight.requires_grad}
        if not trainer.is_global_zero or not types & set(LOW) or not owns_optimizer(pl_module):
            return
        moved = measure_moved_share(pl_module.optim, pl_module.net)
        if moved is not None and moved < self.share:
            rate = pl_module.optim.make(copy_corners(pl_module.net)).param_groups[0]["lr"]
            log.warning(
                "precision=%s: a step at lr=%g moves %.1f %% of the weights, all other changes are rounded away; use "
                "precision=bf16-mixed, which keeps the weights in float32, or a larger optim.lr",
                *(trainer.precision, rate, 100 * moved),
            )


def measure_moved_share(rule: OptimizerRule, net: nn.Module) -> float | None:
    """Of the weights that a step in float32 moves, the share that the step moves in the weights' own type.

    rule  makes the optimizer, at its peak rate
    net   has gradients, and is left as it is

    None where nothing moves in float32 either. Norms and embeddings count like matrices, number by number.
    """
    low, exact = copy_corners(net), copy_corners(net)
    for copy, own in zip(exact.parameters(), low.parameters(), strict=True):
        copy.grad = None  # before the weight changes its type: torch holds the two to one
        copy.data = own.data.float()
        copy.grad = None if own.grad is None else own.grad.float()
    moved, whole = (count_moved(rule, copy) for copy in (low, exact))
    both = sum(int((a & b).sum()) for a, b in zip(moved, whole, strict=True))
    total = sum(int(b.sum()) for b in whole)
    return both / total if total else None


def count_moved(rule: OptimizerRule, net: nn.Module) -> list[torch.Tensor]:
    """Which numbers of every weight one step of the rule changes."""
    before = [weight.detach().clone() for weight in net.parameters()]
    rule.make(net).step()
    return [weight.detach() != old for weight, old in zip(net.parameters(), before, strict=True)]
