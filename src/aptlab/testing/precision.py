"""How exact attention scores are at far positions, and what tables of angles weigh.

Legend: T tokens, P pairs, D head dim, N streams of positions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

FAR = 10_000_000
POSITIONS = (2_048, 131_072, 1_000_000, FAR, 2**24 - 1)
REACH = 2_000  # keys lie up to this many positions before the last query


class ScoredSubject(Protocol):
    """What `measure_errors_at` needs of a `aptlab.testing.invariance.Subject`."""

    head_dim: int
    streams: int

    def scores(self, q_TD: Tensor, k_TD: Tensor, positions: Tensor) -> Tensor: ...

    def exact(self, q_TD: Tensor, k_TD: Tensor, positions: Tensor) -> Tensor: ...


def make_unit_vectors(tokens: int, head_dim: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Seeded queries and keys of unit variance, float32 [T, D] each."""
    generator = torch.Generator().manual_seed(seed)
    q, k = torch.randn(2, tokens, head_dim, generator=generator).unbind(0)
    return q, k


def make_far_positions(position: int, streams: int = 1) -> Tensor:
    """64 positions that end at `position`: 32 side by side, 32 spread over the 2,000 before; int64 [T] or [T, N]."""
    near = torch.arange(position - 31, position + 1)
    places = torch.cat((torch.linspace(position - min(REACH, position), position - 32, 32).long(), near))
    if streams == 1:
        return places
    return torch.stack([(places // streams - 3 * stream).clamp_min(0) for stream in range(streams)], dim=-1)


@torch.no_grad()
def measure_errors_at(subject: ScoredSubject, position: int) -> tuple[float, float]:
    """Mean and largest error of a score at `position`, for float32 vectors of unit variance, against float64."""
    q, k = make_unit_vectors(64, subject.head_dim, seed=1)
    places = make_far_positions(position, subject.streams)
    got, expected = subject.scores(q, k, places), subject.exact(q.double(), k.double(), places)
    error = compute_score_errors(got, expected)
    if not bool(error.isfinite().all()):
        return math.nan, math.nan
    return error.mean().item(), error.max().item()


def compute_score_errors(got: Tensor, expected: Tensor) -> Tensor:
    """|got - wanted| of all scores whose key is not after the query, in units of the score where it is beyond 1.

    A bias of -200 may have the rounding of a number of its size: its weight in a softmax is zero either way.
    """
    seen = torch.ones(expected.shape[-2:], dtype=torch.bool).tril()
    got, expected = got.double()[..., seen], expected.double()[..., seen]
    return (got - expected).abs() / expected.abs().clamp_min(1)


def rotate_by_angles(x_TD: Tensor, angles_TP: Tensor, layout: str, amplitude_TP: Tensor | None = None) -> Tensor:
    """x with pair i rotated by its angle, in the dtype of the angles; dims beyond 2P stay.

    layout  half = pairs (i, i + P), interleaved = (2i, 2i + 1)
    """
    pairs = angles_TP.shape[-1]
    x_TD = x_TD.to(angles_TP.dtype)
    rotary, rest = x_TD[..., : 2 * pairs], x_TD[..., 2 * pairs :]
    if layout == "half":
        first, second = rotary[..., :pairs], rotary[..., pairs:]
    else:
        first, second = rotary[..., ::2], rotary[..., 1::2]
    cos, sin = angles_TP.cos(), angles_TP.sin()
    if amplitude_TP is not None:
        cos, sin = cos * amplitude_TP, sin * amplitude_TP
    real, imaginary = first * cos - second * sin, first * sin + second * cos
    joined = torch.cat((real, imaginary), -1) if layout == "half" else torch.stack((real, imaginary), -1).flatten(-2)
    return torch.cat((joined, rest), -1)


def compute_exact_scores(
    q_TD: Tensor,
    k_TD: Tensor,
    positions_T: Tensor,
    theta_P: Tensor | Sequence[float],
    *,
    layout: str,
    factor: float = 1.0,
    decay_P: Tensor | None = None,
) -> Tensor:
    """factor · (R_m q)·(R_n k) / sqrt(D) with angles position · theta as float64 products, float64 [T, T].

    decay_P  factor of a pair's part of the score per token of distance (xPos); keys after the query are left at 1
    """
    theta = torch.as_tensor(theta_P, dtype=torch.float64)
    angles = positions_T.double().unsqueeze(-1) * theta
    q, k = (rotate_by_angles(x.double(), angles, layout) for x in (q_TD, k_TD))
    scale = factor / math.sqrt(q_TD.shape[-1])
    if decay_P is None:
        return q @ k.mT * scale
    distance = (positions_T.unsqueeze(-1) - positions_T.unsqueeze(-2)).clamp_min(0).double()
    shrink = decay_P.double() ** distance.unsqueeze(-1)
    both = torch.cat((shrink, shrink), -1) if layout == "half" else shrink.repeat_interleave(2, -1)
    both = torch.cat((both, torch.ones(*both.shape[:-1], q.shape[-1] - both.shape[-1], dtype=torch.float64)), -1)
    return torch.einsum("td,sd,tsd->ts", q, k, both) * scale


def count_module_bytes(module: nn.Module) -> int:
    """Bytes of everything a module keeps: parameters, buffers and plain tensors in its attributes."""
    found: dict[int, int] = {}
    for part in module.modules():
        for value in (*part._parameters.values(), *part._buffers.values(), *vars(part).values()):
            if isinstance(value, Tensor):
                found[id(value)] = value.nbytes
    return sum(found.values())


class AllocationCounter(TorchDispatchMode):
    """Counts the bytes of the tensors that operations make; views of a tensor cost nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        view = any(ret.alias_info is not None for ret in func._schema.returns)
        for value in out if isinstance(out, tuple | list) else (out,):
            if isinstance(value, Tensor) and not view:
                self.bytes += value.nbytes
        return out
