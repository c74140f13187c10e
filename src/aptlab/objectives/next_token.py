"""Next-token prediction. Legend: B batch, T tokens, V vocabulary."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from aptlab.errors import ConfigError
from aptlab.objectives.base import Batch, Objective, Parts
from aptlab.objectives.nll import compute_token_nll
from aptlab.objectives.perplexity import IGNORE


class NextToken(Objective):
    """Mean cross entropy of the next token, in nats: loss = -1/N sum ln p(target), over targets that are not IGNORE.

    batch  "targets", int64 [B, T]
    """

    def check_row_targets(self) -> None:
        raise ConfigError(
            f"{type(self).__name__} is the loss of tokens, and here each row has one class; use "
            "objective=cross_entropy, or aptlab.objectives.CrossEntropy as loss or base of another objective"
        )

    def compute_parts(self, output: Any, batch: Batch, *, rows: bool = False) -> Parts:
        """The loss; with `rows` from the losses of all tokens, which takes another [B, T] in memory."""
        targets_BT = batch["targets"]
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
