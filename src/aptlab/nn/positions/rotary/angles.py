"""Cosines and sines of tokens, and what a rule adds to them. Legend: B batch, T tokens, P pairs, N streams."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from aptlab.errors import AptlabError
from aptlab.nn.positions.rope import Rope


class Angles(NamedTuple):
    """Cosine and sine of each pair's angle, float32 [B or 1, 1 or heads, T, P].

    scale   factor on each token's queries, float32 [B or 1, 1, T, 1], where a temperature depends on the token
    """

    cos: Tensor
    sin: Tensor
    scale: Tensor | None = None


def split_streams(rule: Rope, positions: Tensor) -> tuple[Tensor, ...]:
    """The N numbers [B, T] of each token; text positions [B, T] are spread over them as the rule says."""
    if positions.ndim == 2:
        if rule.streams == 1:
            return (positions,)
        return rule.spread(positions)  # type: ignore[attr-defined]
    if positions.ndim == 3 and positions.shape[-1] == rule.streams:
        return positions.unbind(-1)
    shapes = "[B, T]" if rule.streams == 1 else f"[B, T] or [B, T, {rule.streams}]"
    raise AptlabError(
        f"positions have sizes {list(positions.shape)}, and the rule takes {shapes}; give it "
        f"{rule.streams} number{'s' * (rule.streams > 1)} per token, or choose a rope with as many streams "
        "(axial2d, axial3d, mrope)"
    )


def scale_angles(rule: Rope, angles: Angles, positions_BT: Tensor, regime_BT: Tensor | None) -> Angles:
    """Apply what the rule multiplies cosines, sines and queries by."""
    cos, sin, scale = angles
    rates = rule.amplitude(2 * cos.shape[-1])
    if rates is not None:
        shrink = torch.exp(-positions_BT.unsqueeze(-1) * torch.tensor(rates, device=cos.device)).unsqueeze(1)
        cos, sin = cos * shrink, sin * shrink
    temperatures = rule.temperatures()
    if rule.temperature_on == "cos_sin":
        factor = select_per_token([math.sqrt(value) for value in temperatures], regime_BT, cos)
        cos, sin = (cos, sin) if factor is None else (cos * factor, sin * factor)
    elif len(set(temperatures)) > 1:
        scale = select_per_token(list(temperatures), regime_BT, cos)
    return Angles(cos, sin, scale)


def select_per_token(values: list[float], regime_BT: Tensor | None, like: Tensor) -> Tensor | None:
    """Each token's value [B, 1, T, 1] (or one for all); None where it is 1 everywhere."""
    if all(value == 1 for value in values):
        return None
    values_R = torch.tensor(values, dtype=like.dtype, device=like.device)
    return values_R[0] if regime_BT is None or len(values) == 1 else values_R[regime_BT][:, None, :, None]
