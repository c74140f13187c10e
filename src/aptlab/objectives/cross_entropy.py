"""The target of a row, or of each token of it. Legend: B rows, T tokens, K classes or words."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from aptlab.objectives.base import Batch, Objective, Parts
from aptlab.objectives.perplexity import IGNORE


class CrossEntropy(Objective):
    """Mean cross entropy in nats: loss = -1/N sum ln softmax(logits)[target], in float32, over targets but IGNORE.

    logits [B, K] and targets int64 [B] of rows, or [B, T, K] and [B, T] of tokens, where it is `NextToken`.
    """

    def compute_parts(self, output: Any, batch: Batch, *, rows: bool = False) -> Parts:
        targets = batch["targets"]
        nats = compute_nats(output.logits, targets)
        counted = targets != IGNORE
        parts = {"loss": nats.sum() / counted.sum()}
        if rows:
            sums = [part.double().flatten(1).sum(1) for part in (nats.detach()[:, None], counted[:, None])]
            parts["rows"] = torch.stack(sums)
        return parts

    def count_targets(self, batch: Batch) -> Tensor:
        """Targets that are not IGNORE."""
        return (batch["targets"] != IGNORE).sum()

    def sum_losses(self, output: Any, batch: Batch) -> Tensor:
        """Nats and targets of the batch."""
        nats = compute_nats(output.logits, batch["targets"]).double().sum()
        return torch.stack((nats, self.count_targets(batch).double()))


def compute_nats(logits: Tensor, targets: Tensor) -> Tensor:
    """-ln p(target) in float32, in the shape of the targets; 0 where they are IGNORE."""
    flat = F.cross_entropy(logits.float().flatten(0, -2), targets.flatten(), ignore_index=IGNORE, reduction="none")
    return flat.view_as(targets)
