"""The rules of `Rules` on logits, and the draw. Legend: B rows, V vocabulary.

Every rule takes and returns logits [B, V]; a token that is ruled out gets -inf. Shapes never depend on values.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from aptlab.sample.rules import SamplingRules

BAD = -1  # what `draw` answers for a row whose logits are not numbers


def penalise_seen_tokens(logits_BV: Tensor, seen_BV: Tensor, penalty: float) -> Tensor:
    """l' = l / penalty where l > 0 and l · penalty where l < 0, for tokens already seen.

    Keskar et al. 2019 (CTRL, arXiv:1909.05858, section 4.1) divide both; dividing a negative logit would raise it,
    so it is multiplied here, as in transformers.
    """
    lowered = torch.where(logits_BV > 0, logits_BV / penalty, logits_BV * penalty)
    return torch.where(seen_BV, lowered, logits_BV)


def apply_temperature(logits_BV: Tensor, temperature: float) -> Tensor:
    """l' = (l - max l) / temperature; the shift changes no probability and keeps a small temperature from overflowing.

    Ackley, Hinton and Sejnowski 1985.
    """
    return (logits_BV - logits_BV.amax(-1, keepdim=True)) / temperature


def keep_top_k(logits_BV: Tensor, k: int) -> Tensor:
    """Keep the k largest logits, and all that equal the k-th (Fan et al. 2018, arXiv:1805.04833)."""
    least_B1 = logits_BV.topk(min(k, logits_BV.shape[-1]), dim=-1).values[:, -1:]
    return logits_BV.masked_fill(logits_BV < least_B1, -math.inf)


def keep_top_p(logits_BV: Tensor, p: float) -> Tensor:
    """Keep the nucleus: the fewest tokens whose probabilities sum to p or more.

    In falling order, a token stays while the probability before it is below p. The likeliest one always stays.
    Holtzman et al. 2019, arXiv:1904.09751, eq. 2-3.
    """
    sorted_BV, order_BV = logits_BV.sort(dim=-1, descending=True)
    probability_BV = sorted_BV.double().softmax(-1)
    drop_BV = probability_BV.cumsum(-1) - probability_BV >= p
    drop_BV[:, 0] = False
    return logits_BV.masked_fill(torch.zeros_like(drop_BV).scatter(-1, order_BV, drop_BV), -math.inf)


def keep_min_p(logits_BV: Tensor, share: float) -> Tensor:
    """Keep tokens with probability >= share · the largest one, that is l >= max l + ln share.

    Nguyen et al. 2024 (arXiv:2407.01082, algorithm 1).
    """
    least_B1 = logits_BV.amax(-1, keepdim=True) + math.log(share)
    return logits_BV.masked_fill(logits_BV < least_B1, -math.inf)


def apply_rules(rules: SamplingRules, logits_BV: Tensor, seen_BV: Tensor | None = None) -> Tensor:
    """All rules in their order, in float32. Greedy rules are spared the cuts: these never drop the largest logit."""
    logits_BV = logits_BV.float()
    if rules.repetition_penalty != 1 and seen_BV is not None:
        logits_BV = penalise_seen_tokens(logits_BV, seen_BV, rules.repetition_penalty)
    if rules.greedy:
        return logits_BV
    if rules.temperature != 1:
        logits_BV = apply_temperature(logits_BV, rules.temperature)
    if rules.top_k:
        logits_BV = keep_top_k(logits_BV, rules.top_k)
    if rules.top_p < 1:
        logits_BV = keep_top_p(logits_BV, rules.top_p)
    if rules.min_p > 0:
        logits_BV = keep_min_p(logits_BV, rules.min_p)
    return logits_BV


def draw_tokens(rules: SamplingRules, logits_BV: Tensor, uniform_B: Tensor) -> Tensor:
    """The token whose share of [0, 1) contains u: first i with P(token <= i) > u. int64 [B], BAD for NaN logits.

    Inversion of the distribution in float64, one number u per row; greedy rules take the largest logit instead.
    """
    if rules.greedy:
        chosen_B = logits_BV.argmax(-1)
    else:
        mass_BV = logits_BV.double().softmax(-1).cumsum(-1)
        target_B1 = uniform_B.unsqueeze(-1) * mass_BV[:, -1:]
        chosen_B = torch.searchsorted(mass_BV, target_B1, right=True).squeeze(-1)
    broken_B = logits_BV.isnan().any(-1) | (logits_BV == math.inf).any(-1)
    return torch.where(broken_B, BAD, chosen_B)
