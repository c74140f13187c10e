# pyright: reportOperatorIssue=false, reportCallIssue=false, reportIndexIssue=false, reportGeneralTypeIssues=false
# pyright: reportArgumentType=false, reportAssignmentType=false
"""The spike memory of smoothing sites on a device: what it reads of a step, what it proposes, and how it is written.

Legend: R rows (tokens), C dim, N entries (ring, then centroids), S sites, K spikes. No host reads anything here.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

TINY = tl.constexpr(1e-12)
MOST = 8192  # keys that one program sorts


class SketchSpec(NamedTuple):
    """Sizes and limits of the memory, as in `aptlab.nn.smooth.SketchRule`."""

    ring: int
    entries: int
    short: float
    mid: float
    match: float


@triton.jit
def _danger(
    delta_ptr, directions_ptr, strengths_ptr, ages_ptr, lives_ptr, out_ptr, rows, delta_r, near,
    C: tl.constexpr, N: tl.constexpr, BR: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, NARROW: tl.constexpr,
):  # fmt: skip
    """max_j s_j·2^(-age_j/H_j)·relu(cos(delta, n_j) - near)/(1 - near) of a tile of rows, at most 1; NaN counts as 0.

    NARROW: steps have 16 bits, and each float32 direction is the sum of two such numbers: tensor cores lose nothing.
    """
    r, j = tl.program_id(0).to(tl.int64) * BR + tl.arange(0, BR), tl.arange(0, BN)
    dots, square = tl.zeros((BR, BN), tl.float32), tl.zeros((BR,), tl.float32)
    for first in range(0, C, BK):
        c = first + tl.arange(0, BK)
        mask = (r < rows)[:, None] & (c < C)[None, :]
        x = tl.load(delta_ptr + r[:, None] * delta_r + c[None, :], mask=mask, other=0.0)
        n = tl.load(directions_ptr + j[None, :] * C + c[:, None], mask=(j < N)[None, :] & (c < C)[:, None], other=0.0)
        wide = x.to(tl.float32)
        square += tl.sum(wide * wide, 1)
        if NARROW:
            high = n.to(x.dtype)
            dots = tl.dot(x, high, dots)
            dots = tl.dot(x, (n - high.to(tl.float32)).to(x.dtype), dots)
        else:
            dots = tl.dot(wide, n, dots, input_precision="ieee")
    seen = j < N
    fade = tl.load(ages_ptr + j, mask=seen, other=0.0) / tl.load(lives_ptr + j, mask=seen, other=1.0)
    weight = tl.load(strengths_ptr + j, mask=seen, other=0.0) * tl.exp2(-fade)
    over = (dots / tl.maximum(tl.sqrt_rn(square), TINY)[:, None] - near) / (1.0 - near)
    found = tl.max(tl.where(over > 0.0, over, 0.0) * weight[None, :], 1)
    tl.store(out_ptr + r, tl.minimum(found, 1.0), mask=r < rows)


@triton.jit
def _pick(s_ptr, keys_ptr, rows, threshold, TOP: tl.constexpr, BS: tl.constexpr):
    """Keys of the TOP strongest of BS tokens: the bits of s, which order as s does, then the index from the
    end, so that of two equals the earlier token is the larger; 0 = none."""
    i = tl.program_id(0) * BS + tl.arange(0, BS)
    s = tl.load(s_ptr + i, mask=i < rows, other=0.0)
    good = (s > threshold) & (s < float("inf"))
    key = tl.where(good, (s.to(tl.int32, bitcast=True).to(tl.int64) << 32) | (0x7FFFFFFF - i).to(tl.int64), 0)
    for rank in tl.static_range(TOP):
        best = tl.max(key, 0)
        tl.store(keys_ptr + tl.program_id(0).to(tl.int64) * TOP + rank, best)
        key = tl.where(key == best, 0, key)


@triton.jit
def _gather(
    keys_ptr, delta_ptr, directions_ptr, strengths_ptr, count, delta_r,
    C: tl.constexpr, BC: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Direction and strength of the token whose key has the program's rank; zeros where there is none."""
    k, c = tl.arange(0, BK), tl.arange(0, BC)
    keys = tl.load(keys_ptr + k, mask=k < count, other=0)
    best = tl.max(keys, 0)
    for _ in range(tl.program_id(0)):
        keys = tl.where(keys == best, 0, keys)
        best = tl.max(keys, 0)
    strength = (best >> 32).to(tl.int32).to(tl.float32, bitcast=True)
    token = tl.where(best > 0, 0x7FFFFFFF - (best & 0x7FFFFFFF), 0)
    x = tl.load(delta_ptr + token * delta_r + c, mask=c < C, other=0.0).to(tl.float32)
    x = tl.where(best > 0, x, 0.0)
    x = x / tl.maximum(tl.sqrt_rn(tl.sum(x * x, 0)), TINY)
    tl.store(directions_ptr + tl.program_id(0) * C + c, x, mask=c < C)
    tl.store(strengths_ptr + tl.program_id(0), strength)


@triton.jit
def _cosines(directions_ptr, x_ptr, C: tl.constexpr, N: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    j, found = tl.arange(0, BN), tl.zeros((BN,), tl.float32)
    for first in range(0, C, BK):
        c = first + tl.arange(0, BK)
        x = tl.load(x_ptr + c, mask=c < C, other=0.0)
        n = tl.load(directions_ptr + j[:, None] * C + c[None, :], mask=(j < N)[:, None] & (c < C)[None, :], other=0.0)
        found += tl.sum(n * x[None, :], 1)
    return found


@triton.jit
def _mix(out_ptr, a_ptr, a_weight, b_ptr, b_weight, C: tl.constexpr, BC: tl.constexpr):
    """The unit vector of a_weight·a + b_weight·b; all threads of the program see it afterwards."""
    c = tl.arange(0, BC)
    a, b = (tl.load(a_ptr + c, mask=c < C, other=0.0), tl.load(b_ptr + c, mask=c < C, other=0.0))
    x = a_weight * a + b_weight * b
    x = x / tl.maximum(tl.sqrt_rn(tl.sum(x * x, 0)), TINY)
    tl.debug_barrier()
    tl.store(out_ptr + c, x, mask=c < C)
    tl.debug_barrier()


@triton.jit
def _buffer(address_ptr):
    return tl.load(address_ptr).to(tl.pointer_type(tl.float32))


@triton.jit
def _at(values, j, target):
    return tl.sum(tl.where(j == target, values, 0.0), 0)


@triton.jit
def _place_for_centroid(strengths, ages, j, RING: tl.constexpr, N: tl.constexpr):
    """Free before used, then longest unused, then weakest, then first."""
    rest = (j >= RING) & (j < N)
    used = tl.where(rest, (strengths > 0.0).to(tl.int32), 2)
    rest = rest & (used == tl.min(used, 0))
    old = tl.where(rest, ages, -1.0)
    rest = rest & (old == tl.max(old, 0))
    weak = tl.where(rest, strengths, float("inf"))
    return tl.argmax((rest & (weak == tl.min(weak, 0))).to(tl.int32), 0)


@triton.jit
def _remember(
    tables_ptr, spikes_ptr, found_ptr, scratch_ptr, skipped_ptr, count, short, mid, match,
    RING: tl.constexpr, N: tl.constexpr, C: tl.constexpr, BN: tl.constexpr, BC: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """One optimizer step of one site's memory: `SpikeSketch.update`, spike after spike."""
    site, j = tl.program_id(0), tl.arange(0, BN)
    live, table = j < N, tables_ptr + site * 5
    directions_ptr, strengths_ptr = _buffer(table), _buffer(table + 1)
    ages_ptr, lives_ptr, counts_ptr = _buffer(table + 2), _buffer(table + 3), _buffer(table + 4)
    if tl.load(skipped_ptr) == 0:
        strengths = tl.load(strengths_ptr + j, mask=live, other=0.0)
        ages = tl.load(ages_ptr + j, mask=live, other=0.0) + (strengths > 0.0).to(tl.float32)
        lives = tl.load(lives_ptr + j, mask=live, other=1.0)
        counts = tl.load(counts_ptr + j, mask=live, other=0.0)
        scratch = scratch_ptr + site * C
        for number in range(count):
            strength = tl.load(found_ptr + site * count + number)
            spike = spikes_ptr + (site * count + number) * C
            if strength > 0.0:
                cosine = tl.where(strengths > 0.0, _cosines(directions_ptr, spike, C, N, BN, BK), -2.0)
                near, fresh = tl.argmax(cosine, 0), tl.max(cosine, 0) < match
                seen, lasting = _at(counts, j, near), near >= RING
                again = (fresh == 0) & (_at(ages, j, near) == 0.0)
                strength = tl.where(fresh, strength, tl.maximum(strength, _at(strengths, j, near)))
                left = tl.where(j < RING, strengths * tl.exp2(-ages / lives), float("inf"))
                target = tl.where(fresh, tl.argmin(left, 0), near)
                life = tl.where(fresh, short, tl.where(lasting, float("inf"), mid))
                times = tl.where(fresh, 1.0, tl.where(lasting, seen + 1.0, 2.0))
                promoted = (fresh == 0) & (again == 0) & (lasting == 0) & (seen >= 2.0)
                if promoted:  # three sightings make a centroid, or join the one that is already there
                    _mix(scratch, directions_ptr + near * C, 2.0, spike, 1.0, C, BC)
                    cosine = _cosines(directions_ptr, scratch, C, N, BN, BK)
                    cosine = tl.where((strengths > 0.0) & (j >= RING), cosine, -2.0)
                    joins, other = tl.max(cosine, 0) >= match, tl.argmax(cosine, 0)
                    target = tl.where(joins, other, _place_for_centroid(strengths, ages, j, RING, N))
                    times = tl.where(joins, _at(counts, j, other), 0.0)
                    strength = tl.where(joins, tl.maximum(strength, _at(strengths, j, other)), strength)
                    out = directions_ptr + target * C
                    _mix(out, out, times, scratch, tl.where(joins, 3.0, 1.0), C, BC)
                    life, times = tl.full((), float("inf"), tl.float32), times + 3.0
                    strengths = tl.where(j == near, 0.0, strengths)
                if fresh | (lasting & (again == 0)):
                    out = directions_ptr + target * C
                    _mix(out, out, tl.where(fresh, 0.0, seen), spike, 1.0, C, BC)
                strengths = tl.where(j == target, strength, strengths)
                written = (j == target) & (again == 0)
                ages, lives = tl.where(written, 0.0, ages), tl.where(written, life, lives)
                counts = tl.where(written, times, counts)
        tl.store(strengths_ptr + j, strengths, mask=live)
        tl.store(ages_ptr + j, ages, mask=live)
        tl.store(lives_ptr + j, lives, mask=live)
        tl.store(counts_ptr + j, counts, mask=live)


def measure_danger(
    delta_RC: Tensor, directions_NC: Tensor, strengths_N: Tensor, ages_N: Tensor, lives_N: Tensor, near: float
) -> Tensor:
    """float32 [R]."""
    (rows, dim), out = delta_RC.shape, delta_RC.new_empty(delta_RC.shape[0], dtype=torch.float32)
    entries = directions_NC.shape[0]
    # The interpreter multiplies the bits of bfloat16 (findings/triton_interpreter_bf16_dot.sh).
    narrow = delta_RC.dtype == torch.float16 or (delta_RC.dtype == torch.bfloat16 and delta_RC.is_cuda)
    if rows:
        _danger[(triton.cdiv(rows, 64),)](
            delta_RC, directions_NC, strengths_N, ages_N, lives_N, out, rows, delta_RC.stride(0), near, C=dim,
            N=entries, BR=64, BN=max(triton.next_power_of_2(entries), 16), BK=64, NARROW=narrow,
            num_warps=4, num_stages=3,
        )  # fmt: skip
    return out


def pick_spikes(delta_RC: Tensor, s_R: Tensor, top: int, threshold: float) -> tuple[Tensor, Tensor]:
    """Unit directions float32 [top, C] and strengths [top] of the strongest tokens; zeros for none."""
    (rows, dim), new = delta_RC.shape, delta_RC.new_zeros if delta_RC.numel() == 0 else delta_RC.new_empty
    size = max(1024, triton.next_power_of_2(triton.cdiv(rows * top, MOST)))
    blocks = triton.cdiv(rows, size)
    keys = new(blocks * top, dtype=torch.int64)
    directions, strengths = new((top, dim), dtype=torch.float32), new(top, dtype=torch.float32)
    if delta_RC.numel() == 0:
        return directions, strengths
    _pick[(blocks,)](s_R, keys, rows, threshold, TOP=top, BS=size, num_warps=4)
    _gather[(top,)](
        keys, delta_RC, directions, strengths, blocks * top, delta_RC.stride(0), C=dim,
        BC=triton.next_power_of_2(dim), BK=triton.next_power_of_2(blocks * top), num_warps=4,
    )  # fmt: skip
    return directions, strengths


def remember_spikes(
    tables_S5: Tensor, spikes_SKC: Tensor, strengths_SK: Tensor, skipped: Tensor, how: SketchSpec
) -> None:
    """Write the memories of all sites, one program each.

    tables     int64 [S, 5], addresses of every site's directions, strengths, ages, lives and counts
    spikes     float32 unit directions, strongest first; strengths 0 = none
    skipped    one number, not 0 = nothing happens
    """
    sites, count, dim = spikes_SKC.shape
    _remember[(sites,)](
        tables_S5, spikes_SKC, strengths_SK, spikes_SKC.new_empty((sites, dim)), skipped, count,
        how.short, how.mid, how.match, RING=how.ring, N=how.entries, C=dim,
        BN=max(triton.next_power_of_2(how.entries), 16), BC=triton.next_power_of_2(dim), BK=64, num_warps=8,
    )  # fmt: skip
