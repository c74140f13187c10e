"""What a rule of the optimizer and a rule of its learning rate owe. No torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer


class Optim(Protocol):
    """A rule that makes an optimizer; `unscaled` is False where a loss scaler changes the gradients first."""

    def make(self, net: nn.Module, *, unscaled: bool = True) -> Optimizer: ...


class Schedule(Protocol):
    """A rule that scales the learning rate by the share of steps done."""

    def factor(self, step: int, total: int) -> float: ...
