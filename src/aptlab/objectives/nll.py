"""The one token loss of the project. Legend: B batch, T tokens, V vocabulary."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from aptlab.objectives.perplexity import IGNORE

Reduction = Literal["mean", "sum", "none"]


def compute_token_nll(logits_BTV: Tensor, targets_BT: Tensor, reduction: Reduction = "mean") -> Tensor:
    """-ln p(target) in nats, computed in float32 whatever the logits are: mean, sum, or [B, T] with "none".

    Targets that are IGNORE (-100) count nowhere and are 0 in [B, T]; a mean over no target at all is nan.
    """
    nats = F.cross_entropy(
        logits_BTV.float().flatten(0, 1), targets_BT.flatten(), ignore_index=IGNORE, reduction=reduction
    )
    return nats.view_as(targets_BT) if reduction == "none" else nats


def compute_log_partitions(logits_BTV: Tensor) -> Tensor:
    """log Z of each token, Z = sum over the vocabulary of exp(logit), float32 [B, T]."""
    return torch.logsumexp(logits_BTV.float(), dim=-1)
