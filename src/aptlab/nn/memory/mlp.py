"""A memory that is the weights of a small MLP, learned while a text is read (Titans, Behrouz et al. 2025).

Legend: B rows, H heads, T tokens of a piece, i the reader, j and m earlier tokens, D head dim, E hidden units.
arXiv:2501.00663, sections 3.1 and 3.2. With l(M; k, v) = |M(k) - v|² and M(k) = W2 silu(W1 k):

    S_i = eta_i S_{i-1} - theta_i grad l(R; k_i, v_i)        surprise with momentum (eq. 9, 10)
    M_i = (1 - alpha_i) M_{i-1} + S_i                        forgetting             (eq. 13)

R are the weights at the start of the token's chunk (section 3.2), so that all gradients of a chunk are one product.
They are sums of outer products, so no token's own weights are ever made: with the coefficients A, b and c of

    M_i = A_i M_0 + b_i S_0 - sum_j c_ij theta_j grad_j
    c_ij = sum_{m=j..i} prod_{m<n<=i} (1 - alpha_n) prod_{j<n<=m} eta_n

a read is two linear attentions over the chunk beside the products with M_0 and S_0. The gradient is that of formulas,
so training differentiates through it like through anything else. Everything is float32 (float64 stays).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class MLPWeights(NamedTuple):
    """first W1 [B, H, E, D], second W2 [B, H, D, E]; B = 1 serves every row."""

    first: Tensor
    second: Tensor


class MemoryInputs(NamedTuple):
    """What tokens bring to the memory: keys, values and queries [B, H, T, D], and three numbers a head [B, H, T].

    keep      ln(1 - alpha)    momentum  ln eta    step  theta
    """

    k: Tensor
    v: Tensor
    q: Tensor
    keep: Tensor
    momentum: Tensor
    step: Tensor


class Carried(NamedTuple):
    """Weights and surprise after some tokens."""

    weights: MLPWeights
    surprise: MLPWeights


class Surprise(NamedTuple):
    """Factors of each token's gradient: second e hᵀ, first d kᵀ; h [B, H, T, E], e [B, H, T, D], d [B, H, T, E]."""

    h: Tensor
    e: Tensor
    d: Tensor


def read_mlp(weights: MLPWeights, q_BHTD: Tensor) -> Tensor:
    """M(q), [B, H, T, D]."""
    return torch.nn.functional.silu(q_BHTD @ weights.first.mT) @ weights.second.mT


def measure_surprise(reference: MLPWeights, k_BHTD: Tensor, v_BHTD: Tensor) -> Surprise:
    """Factors of the gradient of |M(k) - v|² at the reference weights."""
    a = k_BHTD @ reference.first.mT
    gate = torch.sigmoid(a)
    h = a * gate
    e = 2 * (h @ reference.second.mT - v_BHTD)
    return Surprise(h, e, (e @ reference.second) * gate * (1 + a * (1 - gate)))


def update_memory(
    inputs: MemoryInputs, reference: MLPWeights, carried: Carried, chain_BTT: Tensor, end_BT: Tensor
) -> tuple[Tensor, Carried]:
    """What each token reads after its own update, [B, H, T, D], and what is carried on.

    chain_BTT  bool, the tokens up to each one, itself included, that are learned from; tokens of other chains read
               nothing of worth
    end_BT     bool, the tokens that what is carried on has learned from: those of one chain
    """
    surprise = measure_surprise(reference, inputs.k, inputs.v)
    ends_BST = torch.cat((chain_BTT, end_BT.unsqueeze(1)), 1)  # one more row: after the last token
    keep, momentum = (x.unsqueeze(2) for x in (inputs.keep, inputs.momentum))
    chain, ends = chain_BTT.unsqueeze(1), ends_BST.unsqueeze(1)
    kept_BHS = (keep * ends).sum(-1)  # ln of what is left of the weights before the chain
    moved_BHS = (momentum * ends).sum(-1)
    fade_BHST = exponentiate(kept_BHS.unsqueeze(-1) - kept_BHS[..., :-1].unsqueeze(-2), ends)
    roll_BHST = exponentiate(moved_BHS.unsqueeze(-1) - moved_BHS[..., :-1].unsqueeze(-2), ends)
    learned = (fade_BHST @ (roll_BHST[..., :-1, :] * chain)) * inputs.step.unsqueeze(-2)
    left, pushed = kept_BHS.exp(), (fade_BHST @ moved_BHS[..., :-1].exp().unsqueeze(-1)).squeeze(-1)
    reads = left[..., :-1, None], pushed[..., :-1, None], learned[..., :-1, :]
    out = read_chain(inputs, surprise, carried, *reads)
    last = left[..., -1], pushed[..., -1], learned[..., -1, :]
    rolled = moved_BHS[..., -1].exp(), roll_BHST[..., -1, :] * inputs.step
    return out, carry_on(inputs.k, surprise, carried, last, rolled)


def exponentiate(logs: Tensor, mask: Tensor) -> Tensor:
    """exp where the mask is set, 0 elsewhere; what is not meant may overflow, and has no gradient."""
    return torch.where(mask, logs, -torch.inf).exp()


def read_chain(
    inputs: MemoryInputs, surprise: Surprise, carried: Carried, left: Tensor, pushed: Tensor, learned: Tensor
) -> Tensor:
    """M_i(q_i) for all i, without any M_i."""
    (first, second), (s_first, s_second) = carried
    q = inputs.q
    a = left * (q @ first.mT) + pushed * (q @ s_first.mT) - (learned * (q @ inputs.k.mT)) @ surprise.d
    h = torch.nn.functional.silu(a)
    return left * (h @ second.mT) + pushed * (h @ s_second.mT) - (learned * (h @ surprise.h.mT)) @ surprise.e


def carry_on(
    k_BHTD: Tensor,
    surprise: Surprise,
    carried: Carried,
    last: tuple[Tensor, Tensor, Tensor],
    rolled: tuple[Tensor, Tensor],
) -> Carried:
    """Weights and surprise after the last token."""
    left, pushed, learned = last[0][..., None, None], last[1][..., None, None], last[2].unsqueeze(-1)
    moved, steps = rolled[0][..., None, None], rolled[1].unsqueeze(-1)
    pairs = ((surprise.d, k_BHTD), (surprise.e, surprise.h))
    weights = [
        left * old + pushed * push - (learned * rows).mT @ columns
        for old, push, (rows, columns) in zip(*carried, pairs, strict=True)
    ]
    surprises = [
        moved * push - (steps * rows).mT @ columns
        for push, (rows, columns) in zip(carried.surprise, pairs, strict=True)
    ]
    return Carried(MLPWeights(*weights), MLPWeights(*surprises))
