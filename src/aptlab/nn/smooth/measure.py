"""Turns of steps, per token. Legend: B batch, T tokens, C dim."""

from __future__ import annotations

from torch import Tensor

from aptlab.ops.measure import GUARD, compute_rms


def measure_direction_change(delta_BTC: Tensor, before_BTC: Tensor, size_BT1: Tensor) -> Tensor:
    """How far a step turned from the one before: rms(x - y) / (rms(x) + rms(y) + 1e-6), in [0, 1]."""
    return compute_rms(delta_BTC - before_BTC) / (size_BT1 + compute_rms(before_BTC) + GUARD)
