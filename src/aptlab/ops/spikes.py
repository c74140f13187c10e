"""What a spike memory reads of a step, and which tokens it is offered: kernels on a CUDA device, else the reference.

Legend: B batch, T tokens, C dim, N entries, k candidates. Nothing here takes a gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from aptlab.ops.measure import TINY, upcast_to_float32
from aptlab.ops.smooth_norm import can_use_kernel

# The kernels hold in Triton's interpreter and in their time; on an H200 (PyTorch 2.11, Triton 3.6) their test against
# the references failed (tests/gpu/test_smooth_norm_gpu.py), and until it passes no run is given them.
HELD_ON_CUDA = False


def measure_danger(
    delta_BTC: Tensor, directions_NC: Tensor, strengths_N: Tensor, ages_N: Tensor, lives_N: Tensor, near: float
) -> Tensor:
    """max_j s_j · relu(cos(delta, n_j) - near) / (1 - near) · 2^(-age_j / H_j), [B, T, 1] in [0, 1].

    float32 (float64 stays); the kernel is off by at most 1e-5. A step that is not finite is no danger: its token
    shows it, or takes none.
    """
    delta_BTC, entries = delta_BTC.detach(), (directions_NC, strengths_N, ages_N, lives_N)
    if not can_use_spike_kernel(delta_BTC):
        return measure_danger_reference(delta_BTC, *entries, near)
    run = _danger if torch.compiler.is_compiling() else run_danger
    return run(delta_BTC, *entries, near)


def can_use_spike_kernel(x: Tensor) -> bool:
    """Whether the kernels of the spike memory may stand for the references."""
    return HELD_ON_CUDA and can_use_kernel(x, x)


def measure_danger_reference(
    delta_BTC: Tensor, directions_NC: Tensor, strengths_N: Tensor, ages_N: Tensor, lives_N: Tensor, near: float
) -> Tensor:
    """The equation in plain torch."""
    delta = upcast_to_float32(delta_BTC)
    with torch.autocast(delta.device.type, enabled=False):
        cosine_BTN = make_unit(delta) @ directions_NC.to(delta.dtype).T
    weight_N = (strengths_N * torch.exp2(-ages_N / lives_N)).to(delta.dtype)
    near_BTN = (cosine_BTN - near).clamp_min(0) / (1 - near)
    return (near_BTN * weight_N).amax(-1, keepdim=True).nan_to_num(0.0).clamp(0, 1)


def pick_spikes(delta_BTC: Tensor, s_BT1: Tensor, top: int, threshold: float) -> tuple[Tensor, Tensor]:
    """The `top` strongest tokens above the threshold: unit directions float32 [top, C], strengths [top], 0 = none."""
    delta_BTC, s_BT1 = delta_BTC.detach(), s_BT1.detach()
    if not can_use_spike_kernel(delta_BTC) or s_BT1.dtype != torch.float32:
        return pick_spikes_reference(delta_BTC, s_BT1, top, threshold)
    run = _pick if torch.compiler.is_compiling() else run_pick
    return run(delta_BTC, s_BT1, top, threshold)


def pick_spikes_reference(delta_BTC: Tensor, s_BT1: Tensor, top: int, threshold: float) -> tuple[Tensor, Tensor]:
    """The same in plain torch; tokens of one strength come in any order."""
    delta, s = delta_BTC.flatten(0, -2), s_BT1.flatten()
    s = torch.where(s.isfinite() & (s > threshold), s, torch.zeros_like(s))
    strengths, tokens = s.topk(min(top, s.numel()))
    directions, missing = make_unit(upcast_to_float32(delta[tokens])), top - strengths.numel()
    return F.pad(directions, (0, 0, 0, missing)).float(), F.pad(strengths, (0, missing)).float()


def make_unit(x: Tensor) -> Tensor:
    """x over its length, along the last axis."""
    return x / torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp_min(TINY)


def run_danger(delta, directions, strengths, ages, lives, near):
    """The kernel of `measure_danger`."""
    from aptlab.ops.triton import smooth_norm, spikes

    rows = smooth_norm.flatten_rows(delta)
    return spikes.measure_danger(rows, directions, strengths, ages, lives, near).view(*delta.shape[:-1], 1)


def run_pick(delta, s, top, threshold):
    """The kernel of `pick_spikes`."""
    from aptlab.ops.triton import smooth_norm, spikes

    return spikes.pick_spikes(smooth_norm.flatten_rows(delta), s.reshape(-1), top, threshold)


@torch.library.custom_op("aptlab::measure_danger", mutates_args=())
def _danger(delta: Tensor, directions: Tensor, strengths: Tensor, ages: Tensor, lives: Tensor, near: float) -> Tensor:
    return run_danger(delta, directions, strengths, ages, lives, near)


@_danger.register_fake
def _(delta, directions, strengths, ages, lives, near):
    return delta.new_empty((*delta.shape[:-1], 1), dtype=torch.float32)


@torch.library.custom_op("aptlab::pick_spikes", mutates_args=())
def _pick(delta: Tensor, s: Tensor, top: int, threshold: float) -> tuple[Tensor, Tensor]:
    return run_pick(delta, s, top, threshold)


@_pick.register_fake
def _(delta, s, top, threshold):
    return delta.new_empty((top, delta.shape[-1]), dtype=torch.float32), delta.new_empty(top, dtype=torch.float32)
