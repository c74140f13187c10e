"""Rotation of queries and keys by exact angles at any position.

Legend: B batch, H heads, T tokens, D head dim, P pairs that rotate (D/2, or fewer), R regimes, N streams of positions.
A position is split as hi·4096 + lo. Cosines and sines of hi·4096·theta and of lo·theta are built once in
float64, stored in float32 and joined by one complex product, so that the error does not grow with position
(a float32 product position·theta is off by half a radian at ten million tokens).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from aptlab.nn.positions.rope import Rope
from aptlab.nn.positions.rotary.angles import Angles, scale_angles, split_streams
from aptlab.nn.positions.rotary.base import Rotary
from aptlab.ops.rotary_heads import HeadNorm, RotationArgs

STEP = 4096
LONGEST = STEP * STEP  # positions the two tables cover: 16.7 million


class RotaryEmbedding(Rotary):
    """Rotates pair i of a head by position · theta_i, in the rule's layout of pairs.

    Half-split pairs (i, i + P) are those of Llama checkpoints; Su et al. 2021 (arXiv:2104.09864, eq. 34) pair
    neighbours (2i, 2i + 1): the same rotation after a permutation of the projection's rows.

    heads     query heads, and kv_heads those of keys: needed by rules that differ from head to head
    adaptive  whether angles depend on the length of a token's sequence
    """

    tables: Tensor
    theta: Tensor

    def __init__(self, rule: Rope, *, head_dim: int, heads: int = 1, kv_heads: int = 1) -> None:
        super().__init__()
        self.rule = rule
        self.head_dim = head_dim
        self.regimes = len(rule.regimes(head_dim))
        self.of_head = spread_heads(rule.head_regimes(kv_heads), heads, kv_heads)
        self.adaptive = self.regimes > 1 and self.of_head is None
        self.combine = group_pairs(rule.combine(head_dim))
        self.register_buffer("tables", self._tables(), persistent=False)
        self.theta = self._theta()  # no buffer: a device may have no float64

    @property
    def simple(self) -> bool:  # type: ignore[override]
        """Whether every head of every token rotates by one set of frequencies, as the fused kernel does it."""
        alone = self.regimes == 1 and self.of_head is None and self.combine is None and self.rule.streams == 1
        return alone and self.rule.amplitude(self.head_dim) is None

    @property
    def lo_cos(self) -> Tensor:
        """Cosines of positions below 4096, [R · 4096, P]."""
        return self.tables[2]

    @property
    def factor(self) -> float:
        """Factor on cosines and sines that is the same for all tokens."""
        return math.sqrt(self.rule.temperature) if self.rule.temperature_on == "cos_sin" else 1.0

    @property
    def temperature(self) -> float:  # type: ignore[override]
        """Factor on the logits that is the same for all tokens; what differs is in `Angles.scale`."""
        values = set(self.rule.temperatures())
        return values.pop() if self.rule.temperature_on == "logits" and len(values) == 1 else 1.0

    def _tables(self) -> Tensor:
        """Cosines and sines of hi · 4096 · theta and of lo · theta, [4, R · 4096, P], the regimes below one another."""
        regimes = np.array(self.rule.regimes(self.head_dim), dtype=np.float64)
        tables = np.empty((4, len(regimes), STEP, regimes.shape[1]), dtype=np.float32)
        for regime, theta_P in enumerate(regimes):
            write_rotation_tables(STEP * theta_P, tables[:2, regime])
            write_rotation_tables(theta_P, tables[2:, regime])
        return torch.from_numpy(tables.reshape(4, -1, regimes.shape[1]))

    def _theta(self) -> Tensor:
        """Radians per token of the first regime, float64 [P]: by these float32 heads rotate in the kernel."""
        return torch.tensor(self.rule.regimes(self.head_dim)[0], dtype=torch.float64, device="cpu")

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> RotaryEmbedding:
        """Follow the device, never the dtype: bfloat16 tables ruin positions beyond 256."""
        device = fn(torch.empty(0, device=self.tables.device)).device
        self.tables = (self._tables() if self.tables.is_meta else self.tables).to(device)
        self.theta = self._theta()
        if device.type == "cuda":
            self.theta = self.theta.to(device)
        return self

    def angles(self, positions: Tensor, lengths_BT: Tensor | None = None) -> Angles:
        """Angles of integer positions in [0, 16.7 million), int64 [B, T] or [B, T, N]; B = 1 serves every row.

        lengths_BT  length of the sequence that each token belongs to; None = up to the row's largest position
        """
        streams = split_streams(self.rule, positions)
        if self.of_head is not None:
            parts = [
                self._combine_streams(streams, torch.full_like(streams[0], regime)) for regime in range(self.regimes)
            ]
            cos, sin = (torch.stack([part[i] for part in parts], dim=1)[:, self.of_head] for i in range(2))
            return scale_angles(self.rule, Angles(cos, sin), streams[0], None)
        regime_BT = None
        if self.adaptive:
            if lengths_BT is None:
                lengths_BT = (streams[0].amax(-1, keepdim=True) + 1).expand_as(streams[0])
            regime_BT = self.rule.regime(streams[0], lengths_BT)
        cos_BTP, sin_BTP = self._combine_streams(streams, regime_BT)
        return scale_angles(self.rule, Angles(cos_BTP.unsqueeze(1), sin_BTP.unsqueeze(1)), streams[0], regime_BT)

    def _combine_streams(self, streams: tuple[Tensor, ...], regime_BT: Tensor | None) -> tuple[Tensor, Tensor]:
        """Cosines and sines [B, T, P] of one stream, or of sums of several."""
        if self.combine is None:
            return self._look_up(streams[0], regime_BT)
        cos_parts, sin_parts = [], []
        for coefficients, pairs in self.combine.groups:
            position_BT = sum(c * stream for c, stream in zip(coefficients, streams, strict=True) if c)
            assert isinstance(position_BT, Tensor)
            cos, sin = self._look_up(position_BT.abs(), regime_BT, pairs)
            cos_parts.append(cos)
            sin_parts.append(sin * position_BT.sign().unsqueeze(-1))
        return torch.cat(cos_parts, -1)[..., self.combine.order], torch.cat(sin_parts, -1)[..., self.combine.order]

    def _look_up(
        self, position_BT: Tensor, regime_BT: Tensor | None, pairs: list[int] | None = None
    ) -> tuple[Tensor, Tensor]:
        hi, lo = position_BT.div(STEP, rounding_mode="floor"), position_BT % STEP
        if regime_BT is not None:
            hi, lo = hi + regime_BT * STEP, lo + regime_BT * STEP
        hi_cos, hi_sin, lo_cos, lo_sin = self.tables if pairs is None else self.tables[:, :, pairs]
        hi_cos, hi_sin, lo_cos, lo_sin = hi_cos[hi], hi_sin[hi], lo_cos[lo], lo_sin[lo]
        return hi_cos * lo_cos - hi_sin * lo_sin, hi_sin * lo_cos + hi_cos * lo_sin

    def kernel_args(self, positions_BT: Tensor, queries: int, norm: HeadNorm | None) -> RotationArgs:
        """Tables, layout and norm, in one pass of the kernel."""
        layout, factor = self.rule.layout, self.factor
        return RotationArgs(positions_BT, self.tables, queries, layout, norm, factor, theta=self.theta)

    def extra_repr(self) -> str:
        """Rule and size, for printing."""
        return f"{self.rule}, head_dim={self.head_dim}"


def write_rotation_tables(theta_P: np.ndarray, out: np.ndarray) -> None:
    """Write cosines and sines of n · theta, n in [0, 4096), to `out` [2, 4096, P], by 64 coarse and 64 fine steps.

    A search makes thousands of these, so they are cheap; and by numpy, whose one thread is enough: processes that
    share a host and each give such work to a thread per core wait for one another.
    """
    root = math.isqrt(STEP)
    steps_N1 = np.arange(root, dtype=np.float64)[:, None]
    coarse_NP, fine_NP = np.exp(1j * (root * steps_N1 * theta_P)), np.exp(1j * (steps_N1 * theta_P))
    all_NP = (coarse_NP[:, None] * fine_NP).reshape(STEP, -1)
    out[0], out[1] = np.real(all_NP), np.imag(all_NP)


class PairGroups:
    """Pairs that share the coefficients of their streams, and the order that puts the groups' pairs back."""

    def __init__(self, coefficients: tuple[tuple[int, ...], ...]) -> None:
        distinct = list(dict.fromkeys(coefficients))
        self.groups = [
            (shared, [i for i, coefficient in enumerate(coefficients) if coefficient == shared]) for shared in distinct
        ]
        grouped = [pair for _, pairs in self.groups for pair in pairs]
        self.order = [grouped.index(pair) for pair in range(len(coefficients))]


def group_pairs(coefficients: tuple[tuple[int, ...], ...] | None) -> PairGroups | None:
    """The pairs by their coefficients; None where there is one stream."""
    return None if coefficients is None else PairGroups(coefficients)


def spread_heads(regimes: tuple[int, ...] | None, heads: int, kv_heads: int) -> list[int] | None:
    """The regime of every query head and then of every key head: a query rotates like the key it meets."""
    if regimes is None:
        return None
    return [regimes[head * kv_heads // heads] for head in range(heads)] + list(regimes)
