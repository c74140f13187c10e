"""The objective of DyTox. Legend: B rows, K known classes, O older ones, N those of the newest task."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from aptlab.errors import ConfigError
from aptlab.limits import NonNegative, Positive
from aptlab.models.output import GrowingOutput
from aptlab.objectives.base import Batch, Objective, Parts
from aptlab.objectives.cross_entropy import compute_nats
from aptlab.objectives.perplexity import IGNORE
from aptlab.objectives.rehearsed import check_weights


class DyToxLoss(Objective):
    """DyTox (Douillard et al. 2022, arXiv:2111.11326), of rows of new and of remembered classes alike:

    loss = (1 - a) L(z, y) + a t^2 KL(p' || p) + divergence L(d, max(0, y - O + 1)),  a = O / (O + N)

    z are the logits of the known classes, p and p' the softmax of z / t and of the network before this task over the O
    older ones. d are those of the divergence head: any older class, or one of the N new ones. KL is the mean over rows
    and older classes, and divergence is not weighed by a, both as in the official code. In the first task the loss is
    L(z, y) alone.

    Validation counts -ln softmax(z)[y] in nats; a row whose class no task has brought yet counts ln of the number of
    all classes, as for a network that knows nothing of it.

    loss         L: bce = mean binary cross entropy over rows and classes, as published; ce = cross entropy
    temperature  t
    distill      False: a = 0
    divergence   weight of the divergence head

    Parts: loss_new, loss_distill, loss_divergence. Raises ConfigError for a network that does not grow.
    """

    remembers: ClassVar = "network"

    def __init__(
        self,
        *,
        loss: Literal["bce", "ce"] = "bce",
        temperature: Positive = 1.0,
        distill: bool = True,
        divergence: NonNegative = 0.1,
        aux: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(aux=aux)
        check_weights(divergence=divergence)
        if loss not in ("bce", "ce"):
            raise ConfigError(f"loss={loss} is none of bce, ce")
        self.loss, self.temperature, self.distill, self.divergence = loss, temperature, distill, divergence

    def compute_parts(self, output: Any, batch: Batch, *, rows: bool = False) -> Parts:
        del rows  # a mean over rows and classes with a share of another one is no sum over rows
        output = check_growing(output)
        known, targets = output.known, batch["targets"]
        logits = output.logits.float()[:, known]
        hits = targets[:, None] == known
        new = self._compare(logits, hits)
        parts = {"loss": new, "loss_new": new}
        older = len(known) - output.new
        if self.distill and older and "teacher" in batch:
            before = batch["teacher"].float()[:, known[:older]]
            kept = compute_divergence(logits[:, :older], before, self.temperature)
            share = older / len(known)
            parts |= {"loss": (1 - share) * new + share * kept, "loss_distill": kept}
        if self.divergence and output.divergence is not None:
            is_old = hits[:, :older].any(1, keepdim=True)
            apart = self._compare(output.divergence.float(), torch.cat((is_old, hits[:, older:]), 1))
            parts |= {"loss": parts["loss"] + self.divergence * apart, "loss_divergence": apart}
        return parts

    def _compare(self, logits: Tensor, hits: Tensor) -> Tensor:
        """L: logits and the one class that is right in each row, both [B, K]; a row without one counts nowhere."""
        there = hits.any(1)
        if self.loss == "bce":
            each = F.binary_cross_entropy_with_logits(logits, hits.to(logits.dtype), reduction="none").mean(1)
        else:
            each = F.cross_entropy(logits, hits.int().argmax(1), reduction="none")
        return torch.where(there, each, 0.0).sum() / there.sum()

    def count_targets(self, batch: Batch) -> Tensor:
        """Targets that are not IGNORE."""
        return (batch["targets"] != IGNORE).sum()

    def sum_losses(self, output: Any, batch: Batch) -> Tensor:
        """Nats and targets of the batch."""
        output, targets = check_growing(output), batch["targets"]
        nats = compute_nats(output.logits, targets).double()
        there = torch.isin(targets, output.known) | (targets == IGNORE)
        nats = torch.where(there, nats, math.log(output.logits.shape[-1]))
        return torch.stack((nats.sum(), self.count_targets(batch).double()))


def compute_divergence(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """t^2 KL(p' || p) at a temperature, the mean over rows and classes, in the dtype of the logits."""
    now = torch.log_softmax(logits / temperature, -1)
    before = torch.log_softmax(teacher / temperature, -1)
    return temperature**2 * (before.exp() * (before - now)).mean()


def check_growing(output: Any) -> GrowingOutput:
    """The output, if it is of a network that grows; else ConfigError."""
    if not isinstance(output, GrowingOutput):
        raise ConfigError(
            "objective=dytox reads which classes are known, and this network does not say it; use task=dytox, or "
            "another objective"
        )
    return output
