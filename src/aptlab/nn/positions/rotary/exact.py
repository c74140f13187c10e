"""Rotations whose frequencies change: by length, or by learning. Angles are products in float64.

No other rotation asks a device for float64; one that lacks it cannot run these.

Legend: B batch, H query heads, K key/value heads, T tokens, P pairs, D head dim.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from aptlab.nn.positions.rope import Rope
from aptlab.nn.positions.rotary.angles import Angles, scale_angles, split_streams
from aptlab.nn.positions.rotary.base import Rotary
from aptlab.nn.positions.rotary.tables import spread_heads


class DynamicRotary(Rotary):
    """Frequencies by the length of a token's own sequence (dynamic NTK); nothing is stored.

    The length is known when the sequence begins, with what is still to be generated, so a cached key never has
    another base than the query that meets it, and no row of a batch changes another.
    """

    adaptive = True

    def __init__(self, rule: Rope, *, head_dim: int, heads: int = 1, kv_heads: int = 1) -> None:
        super().__init__()
        del heads, kv_heads
        self.rule, self.head_dim = rule, head_dim
        rule.inv_freq(head_dim)  # an error now, not at the first token
        self.temperature = rule.temperature if rule.temperature_on == "logits" else 1.0

    def angles(self, positions: Tensor, lengths_BT: Tensor | None = None) -> Angles:
        """See `RotaryEmbedding.angles`."""
        (positions_BT,) = split_streams(self.rule, positions)
        if lengths_BT is None:
            lengths_BT = (positions_BT.amax(-1, keepdim=True) + 1).expand_as(positions_BT)
        bases_BT = self.rule.bases(lengths_BT.double(), self.head_dim)  # type: ignore[attr-defined]
        dims = self.rule.rotary_dims(self.head_dim)
        exponents_P = torch.arange(0, dims, 2, dtype=torch.float64, device=positions_BT.device) / dims
        theta_BTP = bases_BT.unsqueeze(-1) ** -exponents_P
        angle_BTP = (positions_BT.unsqueeze(-1) * theta_BTP).unsqueeze(1)
        return scale_angles(self.rule, Angles(angle_BTP.cos().float(), angle_BTP.sin().float()), positions_BT, None)

    def extra_repr(self) -> str:
        """Rule and size, for printing."""
        return f"{self.rule}, head_dim={self.head_dim}"


class LearnedRotaryBase(Rotary):
    """What learned rotations share: one float32 parameter that follows the device and never the dtype."""

    weight: nn.Parameter
    adaptive = False

    def __init__(self, rule: Rope, start: Tensor) -> None:
        super().__init__()
        self.rule = rule
        self.temperature = rule.temperature if rule.temperature_on == "logits" else 1.0
        self.weight = nn.Parameter(start.float(), requires_grad=not rule.frozen)  # type: ignore[attr-defined]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> LearnedRotaryBase:
        device = fn(torch.empty(0, device=self.weight.device)).device
        super()._apply(lambda tensor: tensor.to(device), recurse)
        return self


class LearnedRotary(LearnedRotaryBase):
    """theta_i · exp(pace · a_i) with a learned a, zero at first: the seeds' form of learned frequencies.

    The gradient of a frequency grows with position; `pace` slows its steps. Others learn theta itself.
    """

    def __init__(self, rule: Rope, *, head_dim: int, heads: int = 1, kv_heads: int = 1) -> None:
        del heads, kv_heads
        theta = tuple(map(float, rule.inv_freq(head_dim)))
        super().__init__(rule, torch.zeros(len(theta)))
        self.theta = theta

    def angles(self, positions: Tensor, lengths_BT: Tensor | None = None) -> Angles:
        """See `RotaryEmbedding.angles`."""
        del lengths_BT
        (positions_BT,) = split_streams(self.rule, positions)
        theta_P = torch.tensor(self.theta, dtype=torch.float64, device=positions_BT.device)
        theta_P = theta_P * torch.exp(self.rule.pace * self.weight.double())  # type: ignore[attr-defined]
        angle_BTP = (positions_BT.unsqueeze(-1) * theta_P).unsqueeze(1)
        return scale_angles(self.rule, Angles(angle_BTP.cos().float(), angle_BTP.sin().float()), positions_BT, None)


class MixedRotary(LearnedRotaryBase):
    """Pair i of key head k rotates by h·a + w·b with learned a, b (Heo et al. 2024, arXiv:2403.13298, eq. 14).

    Starts with the standard frequencies, each pointing in a direction of its own drawn with a fixed seed. Query
    heads rotate like the key head that they meet, so logits depend on the distance (dh, dw) alone.
    """

    def __init__(self, rule: Rope, *, head_dim: int, heads: int = 1, kv_heads: int = 1) -> None:
        theta_P = torch.tensor(rule.inv_freq(head_dim), dtype=torch.float64)
        generator = torch.Generator().manual_seed(0)
        direction_KP = 2 * math.pi * torch.rand(kv_heads, len(theta_P), generator=generator, dtype=torch.float64)
        super().__init__(rule, torch.stack((theta_P * direction_KP.cos(), theta_P * direction_KP.sin())))
        self.of_head = spread_heads(tuple(range(kv_heads)), heads, kv_heads)

    def angles(self, positions: Tensor, lengths_BT: Tensor | None = None) -> Angles:
        """See `RotaryEmbedding.angles`; one set per head [B, H + K, T, P]."""
        del lengths_BT
        streams = split_streams(self.rule, positions)
        weights = self.weight.double()[:, self.of_head]
        angle = sum(stream[:, None, :, None] * weight[:, None] for stream, weight in zip(streams, weights, strict=True))
        assert isinstance(angle, Tensor)
        return scale_angles(self.rule, Angles(angle.cos().float(), angle.sin().float()), streams[0], None)
