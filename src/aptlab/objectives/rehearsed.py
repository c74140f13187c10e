"""Objectives for learning one task after another: what is added to the loss of another objective.

Legend: B new rows, M rows of one draw from memory, K logits of a row or token.

A batch may hold, beside what its data give:

    memory   int64 on the host, rows at the end of the batch that each draw of `replays` has
    logits   [M, …], of the rows of the draw "logits", as the network gave them when they came
    teacher  logits of the network as it was at the end of the task before, for all rows of the batch
    kept     int64, the logits of it that the tasks before have taught; all where it is missing
    penalty  a scalar of the weights themselves, with its graph

A batch without them is one of validation, or of a time when there is nothing to remember yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from aptlab.errors import ConfigError
from aptlab.limits import NonNegative, Positive, find_limit
from aptlab.objectives.base import Batch, Objective, Parts

NOT_ROWS = ("memory", "logits", "teacher", "kept", "penalty")


class RehearsedObjective(Objective):
    """An objective over another one, `base`, which is what is validated and what counts targets."""

    def __init__(self, *, base: Objective, aux: Mapping[str, float] | None = None) -> None:
        super().__init__(aux=aux)
        if base.needs != "logits":
            raise ConfigError(f"base={type(base).__name__} reads no logits, which old knowledge is compared by")
        if type(base).compute_step is not Objective.compute_step:
            raise ConfigError(
                f"base={type(base).__name__} runs the network in a way of its own, as at several widths, and "
                f"{type(self).__name__} compares the one output of a plain pass; use base=NextToken or CrossEntropy"
            )
        self.base = base

    def check_row_targets(self) -> None:
        self.base.check_row_targets()

    def count_targets(self, batch: Batch) -> Tensor | None:
        return self.base.count_targets(batch)

    def sum_losses(self, output: Any, batch: Batch) -> Tensor:
        return self.base.sum_losses(output, batch)


class DarkExperience(RehearsedObjective):
    """DER++ (Buzzega et al. 2020, arXiv:2004.07211, eq. 6), and DER with beta=0:

    loss = base(new) + alpha mean (z - z')^2 over a draw of logits z' + beta base(old) over another draw

    The mean is over all logits of all rows of the draw. Parts: loss_new, loss_memory, loss_logits.
    """

    replays: ClassVar[tuple[Literal["targets", "logits"], ...]] = ("targets", "logits")

    def __init__(
        self,
        *,
        base: Objective,
        alpha: NonNegative = 0.1,
        beta: NonNegative = 0.5,
        aux: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(base=base, aux=aux)
        check_weights(alpha=alpha, beta=beta)
        self.alpha, self.beta = alpha, beta

    def compute_parts(self, output: Any, batch: Batch, *, rows: bool = False) -> Parts:
        parts, old = split_memory(output, batch)
        new = self.base.compute_parts(*parts, rows=rows)
        if not old:
            return new
        (targets_output, targets_batch), (logits_output, _) = old
        remembered = self.base.compute_parts(targets_output, targets_batch)["loss"]
        dark = F.mse_loss(logits_output.logits.float(), batch["logits"].float())
        loss = new["loss"] + self.alpha * dark + self.beta * remembered
        return {**new, "loss": loss, "loss_new": new["loss"], "loss_memory": remembered, "loss_logits": dark}


class LearningWithoutForgetting(RehearsedObjective):
    """LwF (Li & Hoiem 2016, arXiv:1606.09282, eq. 2-4): the answers of the network before are kept on the new rows.

    loss = base(new) + weight H(p', p),  p = softmax(z / T), p' = softmax(z' / T) of the network as it was at the end
    of the task before, both over the classes of earlier tasks; the mean over rows (and tokens).
    """

    remembers: ClassVar[Literal["nothing", "network", "weights"]] = "network"

    def __init__(
        self,
        *,
        base: Objective,
        weight: NonNegative = 1.0,
        temperature: Positive = 2.0,
        aux: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(base=base, aux=aux)
        check_weights(weight=weight)
        self.weight, self.temperature = weight, temperature

    def compute_parts(self, output: Any, batch: Batch, *, rows: bool = False) -> Parts:
        parts = self.base.compute_parts(output, batch, rows=rows)
        if "teacher" not in batch:
            return parts
        now, before = output.logits, batch["teacher"]
        if "kept" in batch:
            now, before = now[..., batch["kept"]], before[..., batch["kept"]]
        kept = compute_soft_entropy(now, before, self.temperature)
        return {**parts, "loss": parts["loss"] + self.weight * kept, "loss_new": parts["loss"], "loss_old": kept}


class ElasticWeights(RehearsedObjective):
    """EWC in its online form (Schwarz et al. 2018, arXiv:1805.06370; Kirkpatrick et al. 2017, arXiv:1612.00796, eq. 3):

    loss = base(new) + weight / 2 sum_i F_i (w_i - w'_i)^2,  F <- decay F + F of the task that ends

    w' are the weights at the end of the last task, and F the diagonal of the empirical Fisher information: the mean
    over `samples` rows of that task of the squared gradient of base on one row. decay=1 adds the tasks up.
    """

    remembers: ClassVar[Literal["nothing", "network", "weights"]] = "weights"

    def __init__(
        self,
        *,
        base: Objective,
        weight: NonNegative = 1000.0,
        decay: NonNegative = 1.0,
        samples: int = 200,
        aux: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(base=base, aux=aux)
        check_weights(weight=weight, decay=decay, samples=samples)
        self.weight, self.decay, self.samples = weight, decay, samples

    def compute_parts(self, output: Any, batch: Batch, *, rows: bool = False) -> Parts:
        parts = self.base.compute_parts(output, batch, rows=rows)
        if "penalty" not in batch:
            return parts
        moved = 0.5 * batch["penalty"]
        return {**parts, "loss": parts["loss"] + self.weight * moved, "loss_new": parts["loss"], "loss_moved": moved}


def split_memory(output: Any, batch: Batch) -> tuple[tuple[Any, Batch], list[tuple[Any, Batch]]]:
    """Output and batch of the new rows, and of each draw from memory."""
    if "memory" not in batch:
        return (output, batch), []
    counts = batch["memory"].tolist()
    rows = {name: tensor for name, tensor in batch.items() if name not in NOT_ROWS}
    sizes = [len(rows["ids"]) - sum(counts), *counts]
    logits = output.logits.split(sizes)
    pieces = {name: tensor.split(sizes) for name, tensor in rows.items()}
    parts: list[tuple[Any, Batch]] = [
        (output._replace(logits=logits[i]), {name: piece[i] for name, piece in pieces.items()})
        for i in range(len(sizes))
    ]
    return parts[0], parts[1:]


def compute_soft_entropy(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Mean over rows of -sum_k p'_k ln p_k at a temperature, in float32."""
    goal = torch.softmax(teacher.float() / temperature, -1)
    return -(goal * torch.log_softmax(logits.float() / temperature, -1)).sum(-1).mean()


def check_weights(**values: float) -> None:
    """ConfigError for a weight below 0."""
    limit = find_limit(NonNegative)
    for name, value in values.items():
        if limit is not None and (problem := limit.problem(value)):
            raise ConfigError(f"{name} {problem}")
