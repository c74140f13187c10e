"""Learning rates that a resumed run computes anew: a function of the step and of the configuration, of nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

ON_DEVICE = ("fused", "capturable")  # kernels that want the count of steps where the weights are


class StepRates(LRScheduler):
    """The rate of each parameter group at optimizer step t (0-based): lr_t = lr · factor(t).

    The state of an optimizer holds the settings of its groups (lr, weight decay, betas, fused) beside its moments, and
    loading it brings the old settings back. Lightning loads the scheduler after the optimizer, so here the groups get
    the settings that they were built with again, and the rate of the step that comes next. The moments stay. Of a state
    only the number of steps is read, so that those of torch's own LambdaLR are understood too.
    """

    def __init__(self, optimizer: Optimizer, factor: Callable[[int], float]) -> None:
        self.factor = factor
        self._settings = [{key: group[key] for key in group if key != "params"} for group in optimizer.param_groups]
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Tensor]:
        """Rates at the step that `last_epoch` counts."""
        return [rate * self.factor(self.last_epoch) for rate in self.base_lrs]

    def state_dict(self) -> dict[str, Any]:
        """The number of steps, a plain value."""
        return {"last_epoch": self.last_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the number of steps, and put everything else back to what the configuration says."""
        groups = self.optimizer.param_groups
        for group, settings, rate in zip(groups, self._settings, self.base_lrs, strict=True):
            moved = [name for name in ON_DEVICE if bool(group.get(name)) != bool(settings.get(name))]
            group.update(settings, initial_lr=rate)
            if moved:
                self._place_counts(group, on_device=any(settings.get(name) for name in ON_DEVICE))
        self.last_epoch = state_dict["last_epoch"] - 1
        self._update_lr()  # not `step`, which would count a call before the optimizer's first one

    def _place_counts(self, group: dict[str, Any], *, on_device: bool) -> None:
        """Put the counts of steps where another kernel than before wants them."""
        for weight in group["params"]:
            count = self.optimizer.state.get(weight, {}).get("step")
            if isinstance(count, Tensor):
                self.optimizer.state[weight]["step"] = count.to(weight.device if on_device else "cpu")
