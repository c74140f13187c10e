"""Next-token prediction. Legend: B batch, T tokens, V vocabulary."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from aptlab.errors import ConfigError
from aptlab.limits import NonNegative
from aptlab.objectives.base import Batch, Objective, Parts
from aptlab.objectives.nll import compute_log_partitions, compute_token_nll
from aptlab.objectives.perplexity import IGNORE


class NextToken(Objective):
    """Mean cross entropy of the next token, in nats: loss = -1/N sum ln p(target), over targets that are not IGNORE.

    batch   "targets", int64 [B, T]
    z_loss  weight of the mean of log² Z over the same tokens, Z = sum exp(logit), which keeps logits from drifting away
            together (PaLM, arXiv:2204.02311, section 5: 1e-4; Wortsman et al. 2023, arXiv:2309.14322). It is minimised
            and logged as "z_loss"; a validation does not count it. Costs one more pass over the logits, none at 0.
    """

    def __init__(self, *, aux: Mapping[str, float] | None = None, z_loss: NonNegative = 0.0) -> None:
        super().__init__(aux=aux)
        if not (math.isfinite(z_loss) and z_loss >= 0):
            raise ConfigError(f"z_loss must be a finite number >= 0, got {z_loss}")
        self.z_loss = z_loss

    def check_row_targets(self) -> None:
        raise ConfigError(
            f"{type(self).__name__} is the loss of tokens, and here each row has one class; use "
            "objective=cross_entropy, or aptlab.objectives.CrossEntropy as loss or base of another objective"
        )

    def compute_parts(self, output: Any, batch: Batch, *, rows: bool = False) -> Parts:
        """The loss; with `rows` from the losses of all tokens, which takes another [B, T] in memory."""
        targets_BT = batch["targets"]
        parts = self._compute_loss(output, targets_BT, rows=rows)
        if self.z_loss:
            counted_BT = targets_BT != IGNORE
            squares_BT = torch.where(counted_BT, compute_log_partitions(output.logits).square(), 0.0)
            parts["z_loss"] = squares_BT.sum() / counted_BT.sum()
            parts["loss"] = parts["loss"] + self.z_loss * parts["z_loss"]
        return parts

    def _compute_loss(self, output: Any, targets_BT: Tensor, *, rows: bool) -> Parts:
        if not rows:
            return {"loss": compute_token_nll(output.logits, targets_BT)}
        nats_BT = compute_token_nll(output.logits, targets_BT, "none")
        counted_BT = targets_BT != IGNORE
        sums_2B = torch.stack((nats_BT.detach().double().sum(1), counted_BT.double().sum(1)))
        return {"loss": nats_BT.sum() / counted_BT.sum(), "rows": sums_2B}

    def count_targets(self, batch: Batch) -> Tensor:
        """Targets that are not IGNORE."""
        return (batch["targets"] != IGNORE).sum()

    def sum_losses(self, output: Any, batch: Batch) -> Tensor:
        """Nats and targets of the batch."""
        nats = compute_token_nll(output.logits, batch["targets"], "sum")
        return torch.stack((nats.double(), (batch["targets"] != IGNORE).sum().double()))
