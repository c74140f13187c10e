"""What one smoothing site hands on, and what it measures. Legend: B batch, T tokens, C dim."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from aptlab.ops.measure import compute_rms, upcast_to_float32

Trace = dict[str, Tensor]


class Carry(NamedTuple):
    """Depth history of one chain of sites (all attention sites, or all ffn sites), always detached.

    step  the step that the previous block applied, [B, T, C]
    phi   its angle, [B, T, 1]
    """

    step: Tensor
    phi: Tensor


class JoinResult(NamedTuple):
    """One join with what it measured per token, each [B, T, 1]: strength s, angle phi, gate g, finite step or not.

    normed  [B, T, C], the norm of u that a kernel made in the same pass; None = nobody asked, or no kernel ran
    """

    u: Tensor
    carry: Carry | None
    strength: Tensor
    angle: Tensor
    gate: Tensor
    finite: Tensor
    normed: Tensor | None = None


def build_trace(joined: JoinResult, danger_BT1: Tensor | None = None) -> Trace:
    """Scalars of one site, detached: token means of strength, angle, gate and danger; peak = max |u'|; nonfinite =
    number of tokens whose step was not finite."""
    values = {name: getattr(joined, name).detach().mean() for name in ("strength", "angle", "gate")}
    values["danger"] = torch.zeros_like(values["gate"]) if danger_BT1 is None else danger_BT1.mean()
    values["peak"] = joined.u.detach().abs().amax().to(values["gate"].dtype)
    values["nonfinite"] = (~joined.finite).sum().to(values["gate"].dtype)
    return values


def measure_join(u: Tensor, delta: Tensor, step: Tensor, out: Tensor) -> Trace:
    """Scalars of a join that has no angle, detached: token means of strength = rms(delta) / rms(u) and gate =
    rms(step) / rms(delta), the share of the branch that is added; peak = max |u'|; nonfinite = number of tokens whose
    branch was not finite."""
    u, delta, step, out = (upcast_to_float32(x.detach()) for x in (u, delta, step, out))
    size = compute_rms(delta)
    values = {
        "strength": (size / compute_rms(u)).mean(),
        "gate": (compute_rms(step) / size).mean(),
        "peak": out.abs().amax(),
        "nonfinite": (~size.isfinite()).sum(),
    }
    return {name: value.float() for name, value in values.items()}
