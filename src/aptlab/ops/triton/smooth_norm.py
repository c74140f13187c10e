# pyright: reportOperatorIssue=false, reportCallIssue=false, reportIndexIssue=false, reportGeneralTypeIssues=false
# pyright: reportArgumentType=false, reportAssignmentType=false
"""A branch joins the stream, gated or not, and the RMS norm that reads the sum, in one pass over memory.

Legend: R rows (tokens), C dim, H rows of a tile. A program keeps whole rows in registers: every tensor is read once
and written once. Arithmetic is float32; what is stored is rounded once, and the norm reads the stream as it is stored.
Offsets are 64-bit.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

TINY = tl.constexpr(1e-12)  # inside the root of every size
GUARD = tl.constexpr(1e-6)  # beside sums of sizes
STEEP = tl.constexpr(20.0)  # from here on softplus is its argument, as in torch
STRENGTH, ANGLE, GATE, SIZE = range(4)  # rows of the statistics


class JoinSpec(NamedTuple):
    """Numbers of a join; they are arguments of the kernel, so that no value costs a compilation.

    gated     u + g·delta; without, u + delta, and the numbers of the gate have no say
    zero      a token whose step is not finite takes none
    baseline  softplus(-tau), guard  what is added to the size of the stream, eps  of the norm
    """

    gated: bool
    zero: bool
    alpha: float
    tau: float
    beta: float
    kappa: float
    baseline: float
    w1: float
    w2: float
    guard: float
    eps: float


class JoinTile(NamedTuple):
    """Rows that a program has at a time, its warps, and programs per multiprocessor (backward with weights)."""

    rows: int
    warps: int
    programs: int = 8


class JoinOutputs(NamedTuple):
    """stream [R, C]; normed [R, C]; step [R, C] applied; stats float32 [4, R]; rstd float32 [R]; None = not asked."""

    stream: Tensor
    normed: Tensor | None
    step: Tensor | None
    stats: Tensor | None
    rstd: Tensor | None


class SavedJoin(NamedTuple):
    """What a gradient needs: stream, rstd and weight where there was a norm, stats where there was a gate."""

    stream: Tensor | None
    rstd: Tensor | None
    stats: Tensor | None
    weight: Tensor | None


@triton.jit
def _rms(x, C):
    return tl.sqrt_rn(tl.sum(x * x, 1) / C + TINY)


@triton.jit
def _angle(s, phi_ptr, lift_ptr, h, seen, alpha, tau, beta, kappa, baseline):
    """(1 - beta)·phi' + beta·alpha·[sp(s + lift - tau) - sp(-tau)]+ of every row; NaN stays NaN."""
    x = s - tau
    if lift_ptr is not None:
        x += tl.load(lift_ptr + h, mask=seen, other=0.0)
    steep = kappa * x
    soft = tl.where(steep > STEEP, x, tl.log(1.0 + tl.exp(steep)) / kappa) - baseline
    phi = alpha * tl.where(soft < 0.0, 0.0, soft)
    if phi_ptr is not None:
        phi = (1.0 - beta) * tl.load(phi_ptr + h, mask=seen, other=0.0) + beta * phi
    return phi


@triton.jit(do_not_specialize=["rows"])
def _forward(
    u_ptr, delta_ptr, before_ptr, phi_ptr, lift_ptr, weight_ptr, out_ptr, normed_ptr, step_ptr, stats_ptr, rstd_ptr,
    rows, u_r, delta_r, before_r, alpha, tau, beta, kappa, baseline, w1, w2, guard, eps,
    C: tl.constexpr, BC: tl.constexpr, H: tl.constexpr, GATED: tl.constexpr, ZERO: tl.constexpr,
):  # fmt: skip
    h = tl.program_id(0).to(tl.int64) * H + tl.arange(0, H)
    c = tl.arange(0, BC)
    seen = h < rows
    mask, at = seen[:, None] & (c < C)[None, :], h[:, None] * C + c[None, :]
    u = tl.load(u_ptr + h[:, None] * u_r + c[None, :], mask=mask, other=0.0).to(tl.float32)
    delta = tl.load(delta_ptr + h[:, None] * delta_r + c[None, :], mask=mask, other=0.0).to(tl.float32)
    step = delta
    if GATED:
        before = delta
        if before_ptr is not None:
            before = tl.load(before_ptr + h[:, None] * before_r + c[None, :], mask=mask, other=0.0).to(tl.float32)
        size = _rms(delta, C)
        seen_size = size
        if ZERO:
            whole = size < float("inf")
            delta = tl.where(whole[:, None], delta, 0.0)
            size = tl.where(whole, size, GUARD)  # the rms of zeros: sqrt(TINY)
        s = w1 * (size / (_rms(u, C) + guard))
        if before_ptr is not None:
            s += w2 * (_rms(delta - before, C) / (size + _rms(before, C) + GUARD))
        phi = _angle(s, phi_ptr, lift_ptr, h, seen, alpha, tau, beta, kappa, baseline)
        gate = tl.div_rn(tl.full((H,), 1.0, tl.float32), tl.sqrt_rn(1.0 + phi * phi))
        step = gate[:, None] * delta
        tl.store(stats_ptr + h, s, mask=seen)
        tl.store(stats_ptr + rows + h, phi, mask=seen)
        tl.store(stats_ptr + 2 * rows.to(tl.int64) + h, gate, mask=seen)
        tl.store(stats_ptr + 3 * rows.to(tl.int64) + h, seen_size, mask=seen)
        if step_ptr is not None:
            tl.store(step_ptr + at, step.to(step_ptr.dtype.element_ty), mask=mask)
    stream = (u + step).to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + at, stream, mask=mask)
    if normed_ptr is not None:
        x = stream.to(tl.float32)
        rstd = tl.rsqrt(tl.sum(x * x, 1) / C + eps)
        tl.store(rstd_ptr + h, rstd, mask=seen)
        weight = tl.load(weight_ptr + c, mask=c < C, other=0.0).to(tl.float32)
        normed = x * rstd[:, None] * weight[None, :]
        tl.store(normed_ptr + at, normed.to(normed_ptr.dtype.element_ty), mask=mask)


@triton.jit
def _read_rows(pointer, stride, h, seen, C: tl.constexpr, BC: tl.constexpr):
    c = tl.arange(0, BC)[None, :]
    return tl.load(pointer + h[:, None] * stride + c, mask=seen[:, None] & (c < C), other=0.0)


@triton.jit
def _read_gate(stats_ptr, rows, h, seen, ZERO: tl.constexpr):
    """g of every row; 0 where the step was taken as zero."""
    gate = tl.load(stats_ptr + 2 * rows + h, mask=seen, other=0.0)
    if ZERO:
        size = tl.load(stats_ptr + 3 * rows + h, mask=seen, other=0.0)
        gate = tl.where(size < float("inf"), gate, 0.0)
    return gate


@triton.jit
def _write_rows(pointer, h, seen, x, C: tl.constexpr, BC: tl.constexpr):
    c = tl.arange(0, BC)[None, :]
    tl.store(pointer + h[:, None] * C + c, x.to(pointer.dtype.element_ty), mask=seen[:, None] & (c < C))


@triton.jit(do_not_specialize=["rows"])
def _backward(
    grad_ptr, dnormed_ptr, out_ptr, rstd_ptr, weight_ptr, stats_ptr, du_ptr, ddelta_ptr, sums_ptr,
    rows, grad_r, dnormed_r,
    C: tl.constexpr, BC: tl.constexpr, H: tl.constexpr, GATED: tl.constexpr, ZERO: tl.constexpr,
):  # fmt: skip
    """dx = dstream + (dn·w - n·mean(dn·w·n))·rstd with n = x·rstd; du = dx, ddelta = g·dx, dw = sum of dn·n.

    A program has the tiles pid, pid + programs, ...; what it reads next is asked for before it writes.
    """
    c = tl.arange(0, BC)
    NORMED: tl.constexpr = dnormed_ptr is not None
    GIVEN: tl.constexpr = grad_ptr is not None
    weight = tl.zeros((1, BC), tl.float32)
    if NORMED:
        weight = tl.load(weight_ptr + c, mask=c < C, other=0.0).to(tl.float32)[None, :]
    sums = tl.zeros((H, BC), tl.float32)
    stride = tl.num_programs(0) * H
    h = tl.program_id(0).to(tl.int64) * H + tl.arange(0, H)
    if GIVEN:
        grad = _read_rows(grad_ptr, grad_r, h, h < rows, C, BC)
    if NORMED:
        dnormed, x = _read_rows(dnormed_ptr, dnormed_r, h, h < rows, C, BC), _read_rows(out_ptr, C, h, h < rows, C, BC)
    for _ in range(tl.program_id(0) * H, rows, stride):
        seen = h < rows
        dx = tl.zeros((H, BC), tl.float32)
        if GIVEN:
            dx += grad.to(tl.float32)
        if NORMED:
            rstd = tl.load(rstd_ptr + h, mask=seen, other=0.0)[:, None]
            n, dn = x.to(tl.float32) * rstd, dnormed.to(tl.float32)
            sums += dn * n
            dn *= weight
            dx += (dn - n * (tl.sum(dn * n, 1) / C)[:, None]) * rstd
        ahead = h + stride
        if GIVEN:
            grad = _read_rows(grad_ptr, grad_r, ahead, ahead < rows, C, BC)
        if NORMED:
            dnormed = _read_rows(dnormed_ptr, dnormed_r, ahead, ahead < rows, C, BC)
            x = _read_rows(out_ptr, C, ahead, ahead < rows, C, BC)
        if du_ptr is not None:
            _write_rows(du_ptr, h, seen, dx, C, BC)
        if ddelta_ptr is not None:
            if GATED:
                dx *= _read_gate(stats_ptr, rows.to(tl.int64), h, seen, ZERO)[:, None]
            _write_rows(ddelta_ptr, h, seen, dx, C, BC)
        h = ahead
    if NORMED:
        tl.store(sums_ptr + tl.program_id(0).to(tl.int64) * C + c, tl.sum(sums, 0), mask=c < C)


def join_forward(
    u_BTC: Tensor,
    delta_BTC: Tensor,
    history: tuple[Tensor | None, Tensor | None],
    lift_BT1: Tensor | None,
    weight_C: Tensor | None,
    how: JoinSpec,
    *,
    keep_step: bool,
    tile: JoinTile | None = None,
) -> JoinOutputs:
    """One join, and the norm where there is a weight; history = the step [B, T, C] and angle [B, T, 1] before."""
    u_RC, delta_RC = flatten_rows(u_BTC), flatten_rows(delta_BTC)
    before_RC = None if history[0] is None else flatten_rows(history[0])
    phi_R, lift_R = (None if x is None else x.reshape(-1).float() for x in (history[1], lift_BT1))
    rows, dim = u_RC.shape
    new = u_RC.new_empty
    out = JoinOutputs(
        stream=new(u_BTC.shape),
        normed=None if weight_C is None else new(u_BTC.shape),
        step=new(u_BTC.shape, dtype=delta_BTC.dtype) if keep_step else None,
        stats=new((4, rows), dtype=torch.float32) if how.gated else None,
        rstd=None if weight_C is None else new(rows, dtype=torch.float32),
    )
    tile = tile or choose_tile(dim)
    if u_RC.numel():
        _forward[(triton.cdiv(rows, tile.rows),)](
            u_RC, delta_RC, before_RC, phi_R, lift_R, weight_C, out.stream, out.normed, out.step, out.stats, out.rstd,
            rows, u_RC.stride(0), delta_RC.stride(0), 0 if before_RC is None else before_RC.stride(0),
            how.alpha, how.tau, how.beta, how.kappa, how.baseline, how.w1, how.w2, how.guard, how.eps,
            C=dim, BC=triton.next_power_of_2(dim), H=tile.rows, GATED=how.gated, ZERO=how.zero, num_warps=tile.warps,
        )  # fmt: skip
    return out


def join_backward(
    dstream_BTC: Tensor | None,
    dnormed_BTC: Tensor | None,
    saved: SavedJoin,
    how: JoinSpec,
    delta_dtype: torch.dtype,
    *,
    tile: JoinTile | None = None,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of u, delta and the weight; None for u: it is dstream; None for delta: it is u's.

    The weight's is a sum over programs of sums over their rows, whose order only the device and the sizes set.
    """
    like = saved.stream if saved.stream is not None else dstream_BTC
    assert like is not None
    dim, empty = like.shape[-1], like.new_empty
    rows = like.numel() // max(dim, 1)
    grad, dnormed = (None if x is None else flatten_rows(x) for x in (dstream_BTC, dnormed_BTC))
    du = None if dnormed is None else empty(like.shape)
    ddelta = empty(like.shape, dtype=delta_dtype) if how.gated or delta_dtype != like.dtype else None
    tile = tile or choose_tile(dim)
    programs = min(triton.cdiv(rows, tile.rows), tile.programs * count_multiprocessors(like))
    sums = None if dnormed is None else empty((programs, dim), dtype=torch.float32)
    if like.numel():
        _backward[(programs,)](
            grad, dnormed, saved.stream, saved.rstd, saved.weight, saved.stats, du, ddelta, sums,
            rows, 0 if grad is None else grad.stride(0), 0 if dnormed is None else dnormed.stride(0),
            C=dim, BC=triton.next_power_of_2(dim), H=tile.rows, GATED=how.gated, ZERO=how.zero, num_warps=tile.warps,
        )  # fmt: skip
    return du, ddelta, None if sums is None or saved.weight is None else sums.sum(0).to(saved.weight.dtype)


# C rounded up to a power of two -> tile. All programs of a backward pass must fit the device at once, or the last ones
# run alone: registers of an H200 hold 7 of 4 warps at 1024 float32 columns, 4 at 2048, 2 of 8 warps at 4096.
TILES = {
    256: JoinTile(4, 4, programs=6),
    512: JoinTile(2, 4, programs=6),
    1024: JoinTile(1, 4, programs=6),
    2048: JoinTile(1, 4, programs=4),
    4096: JoinTile(1, 8, programs=2),
    8192: JoinTile(1, 16, programs=1),
}


def choose_tile(dim: int) -> JoinTile:
    """For rows of this width."""
    return TILES[min(max(triton.next_power_of_2(dim), min(TILES)), max(TILES))]


def count_multiprocessors(x: Tensor) -> int:
    return torch.cuda.get_device_properties(x.device).multi_processor_count if x.is_cuda else 1


def flatten_rows(x_BTC: Tensor) -> Tensor:
    """[R, C] with neighbours of the last dim side by side; a copy only where no view can be that."""
    x_RC = x_BTC.reshape(-1, x_BTC.shape[-1])
    return x_RC if x_RC.stride(-1) == 1 else x_RC.contiguous()
