"""Next-token prediction with smoothed labels. Legend: B batch, T tokens, V vocabulary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from aptlab.limits import OpenFraction
from aptlab.objectives import IGNORE, Objective


class SmoothedLabels(Objective):
    """(1 - share) · nll + share · mean over the vocabulary of -ln p (Szegedy et al. 2016, arXiv:1512.00567, eq. 7)."""

    def __init__(self, *, share: OpenFraction = 0.1, aux: Mapping[str, float] | None = None) -> None:
        super().__init__(aux=aux)
        self.share = share

    def compute_parts(self, output: Any, batch: Mapping[str, Tensor], *, rows: bool = False) -> dict[str, Tensor]:
        """The smoothed loss, and the plain one as `nll`."""
        logits_NV, targets_N = output.logits.float().flatten(0, 1), batch["targets"].flatten()
        smoothed = F.cross_entropy(logits_NV, targets_N, ignore_index=IGNORE, label_smoothing=self.share)
        return {"loss": smoothed, "nll": F.cross_entropy(logits_NV, targets_N, ignore_index=IGNORE).detach()}

    def sum_losses(self, output: Any, batch: Mapping[str, Tensor]) -> Tensor:
        """Plain nats, so that validations of any objective can be compared."""
        logits_NV, targets_N = output.logits.float().flatten(0, 1), batch["targets"].flatten()
        nats = F.cross_entropy(logits_NV, targets_N, ignore_index=IGNORE, reduction="sum")
        return torch.stack((nats.double(), (targets_N != IGNORE).sum().double()))
