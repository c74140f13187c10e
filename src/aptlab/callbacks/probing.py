"""What a model makes of some rows, measured between two steps without a trace.

Legend: B rows of a micro-batch, T tokens, V outputs.
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from aptlab.callbacks.evaluating import evaluate_quietly
from aptlab.callbacks.lookup import get_datamodule
from aptlab.curriculum.base import Answer, Probe
from aptlab.data.loader import to_tensors
from aptlab.data.rows.numbered import NumberedRows
from aptlab.errors import ConfigError
from aptlab.objectives import IGNORE, Objective, get_step_state


def has_objective(module: object) -> bool:
    """Whether a task has an objective and counts what a batch is, as `aptlab.tasks.Task` does.

    No protocol is asked: from Python 3.12 on, isinstance with one does not see the submodules of a module.
    """
    return isinstance(getattr(module, "objective", None), Objective) and hasattr(module, "count_units")


class ProbeMeter:
    """Measures probes in micro-batches of the run's own size, each rank its share of rows, and counts what it reads.

    units  of the task (tokens) that were read on all ranks
    """

    def __init__(self) -> None:
        self.units = 0
        self.unit = "tokens"

    def measure(self, trainer: Trainer, module: LightningModule, rows: NumberedRows, probe: Probe) -> Answer:
        """The answer to a probe, equal on all ranks up to rounding. All ranks must call it together."""
        if not has_objective(module):
            raise ConfigError(
                f"task: {type(module).__name__} has no objective and count_units, by which a curriculum measures a "
                "model; derive it from aptlab.tasks.Task, or use curriculum=sorted without a ModelLoss"
            )
        self.unit = get_step_state(module).unit
        sums_R2 = self._sum_rows(trainer, module, rows, probe)
        if probe.what == "rows":
            return (sums_R2[:, 0] / sums_R2[:, 1].clamp(min=1)).cpu().numpy()
        losses, targets = sums_R2.sum(0).tolist()
        return losses / targets if targets else math.nan

    def _sum_rows(self, trainer: Trainer, module: LightningModule, rows: NumberedRows, probe: Probe) -> Tensor:
        """Sums and numbers of targets, [R, 2]: of every row for "rows", else of every batch in its first row."""
        batch = cast(Any, get_datamodule(trainer)).count_global_batch() // trainer.world_size
        exact = torch.float32 if module.device.type == "mps" else torch.float64
        sums = torch.zeros(len(probe.ids), 2, dtype=exact, device=module.device)
        units, rank, world = 0, trainer.global_rank, trainer.world_size
        with evaluate_quietly(trainer, module):
            for first in range(rank * batch, len(probe.ids), world * batch):
                tensors = to_tensors(rows.read_rows(probe.ids[first : first + batch]))
                found, count = measure_batch(trainer, module, tensors, probe.what)
                sums[first : first + len(found)] = found.to(exact)
                units += count
        if world > 1:
            # One tensor: Lightning 2.6 reduces no tuple, and says nothing.
            both = torch.cat((sums.flatten(), sums.new_tensor([float(units)])))
            both = cast(Tensor, trainer.strategy.reduce(both, reduce_op="sum"))
            sums, units = both[:-1].view_as(sums), int(both[-1])
        self.units += units
        return sums


def measure_batch(trainer: Trainer, module: Any, tensors: dict[str, Tensor], what: str) -> tuple[Tensor, int]:
    """Sum and number of targets, [1, 2] or of each row [B, 2], and units read."""
    batch = trainer.strategy.batch_to_device(trainer.precision_plugin.convert_input(tensors), module.device)
    output = module(batch)
    if what == "rows":
        found = module.objective(output, batch, rows=True).get("rows")
        if found is None:
            raise ConfigError(
                f"objective: {type(module.objective).__name__} has no loss by row, which ModelLoss sorts by; take the "
                "metric out, or another objective"
            )
        return found.T, module.count_units(batch)
    if what == "loss":
        return module.objective.sum_losses(output, batch).view(1, 2), module.count_units(batch)
    logits, targets = getattr(output, "logits", None), batch["targets"]
    if logits is None:
        raise ConfigError(
            f"objective: {type(module.objective).__name__} takes no logits, and curriculum=stages measures the share "
            "of targets that they find; use another objective, or curriculum=campus"
        )
    counted = targets != IGNORE
    hits = (logits.argmax(-1) == targets) & counted
    return torch.stack((hits.sum(), counted.sum())).view(1, 2), module.count_units(batch)
