# pyright: reportOperatorIssue=false, reportCallIssue=false, reportIndexIssue=false, reportGeneralTypeIssues=false
"""Rotation of all query and key heads of a token in one pass over memory, with RMS norm fused in if asked.

Legend: B batch, N query and key heads side by side, T tokens, D head dim, P pairs that turn. One program reads one
token (or several, backwards): cosines and sines come from two small tables that stay in the cache of the device and
serve every head. Products are float32 and rounded once, at the store. Offsets are 64-bit.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

NORMS = {None: 0, "before": 1, "after": 2}


@triton.jit
def _angles(position, tables, factor, i_P, seen_P, P: tl.constexpr):
    """Cosine and sine [1, P] of position · theta, from position = hi · 4096 + lo."""
    size = 4096 * P
    hi, lo = (position // 4096) * P, (position % 4096) * P
    hi_cos = tl.load(tables + hi + i_P, mask=seen_P, other=0.0)
    hi_sin = tl.load(tables + size + hi + i_P, mask=seen_P, other=0.0)
    lo_cos = tl.load(tables + 2 * size + lo + i_P, mask=seen_P, other=0.0)
    lo_sin = tl.load(tables + 3 * size + lo + i_P, mask=seen_P, other=0.0)
    cos = (hi_cos * lo_cos - hi_sin * lo_sin) * factor
    sin = (hi_sin * lo_cos + hi_cos * lo_sin) * factor
    return cos[None, :], sin[None, :]


@triton.jit
def _read(
    rows, seen_H, i_P, seen_P, P: tl.constexpr, BP: tl.constexpr, BH: tl.constexpr, INTERLEAVED: tl.constexpr
):  # fmt: skip
    """First and second members [H, P] of the pairs, float32."""
    if INTERLEAVED:
        c = tl.arange(0, 2 * BP)
        both = tl.load(rows[:, None] + c[None, :], mask=seen_H[:, None] & (c < 2 * P)[None, :], other=0.0).to(
            tl.float32
        )
        a, b = tl.split(tl.reshape(both, (BH, BP, 2)))
    else:
        seen = seen_H[:, None] & seen_P[None, :]
        a = tl.load(rows[:, None] + i_P[None, :], mask=seen, other=0.0).to(tl.float32)
        b = tl.load(rows[:, None] + P + i_P[None, :], mask=seen, other=0.0).to(tl.float32)
    return a, b


@triton.jit
def _write(
    rows, seen_H, a, b, i_P, seen_P, P: tl.constexpr, BP: tl.constexpr, BH: tl.constexpr, INTERLEAVED: tl.constexpr
):  # fmt: skip
    kind = rows.dtype.element_ty
    if INTERLEAVED:
        c = tl.arange(0, 2 * BP)
        both = tl.reshape(tl.join(a, b), (BH, 2 * BP))
        tl.store(rows[:, None] + c[None, :], both.to(kind), mask=seen_H[:, None] & (c < 2 * P)[None, :])
    else:
        seen = seen_H[:, None] & seen_P[None, :]
        tl.store(rows[:, None] + i_P[None, :], a.to(kind), mask=seen)
        tl.store(rows[:, None] + P + i_P[None, :], b.to(kind), mask=seen)


@triton.jit
def _weights(weight_ptr, first, second, seen_P, D: tl.constexpr):
    """The norm's weights of both members of every pair, of queries and of keys, float32 [P] each."""
    wq_first = tl.load(weight_ptr + first, mask=seen_P, other=0.0).to(tl.float32)
    wq_second = tl.load(weight_ptr + second, mask=seen_P, other=0.0).to(tl.float32)
    wk_first = tl.load(weight_ptr + D + first, mask=seen_P, other=0.0).to(tl.float32)
    wk_second = tl.load(weight_ptr + D + second, mask=seen_P, other=0.0).to(tl.float32)
    return wq_first, wq_second, wk_first, wk_second


@triton.jit
def _forward(
    x_ptr, out_ptr, positions_ptr, tables_ptr, weight_ptr, scale_ptr,
    T, x_b, x_h, x_t, out_b, out_h, out_t, positions_b, scale_b, eps, factor,
    Q: tl.constexpr, N: tl.constexpr, D: tl.constexpr, P: tl.constexpr,
    BH: tl.constexpr, BP: tl.constexpr, BR: tl.constexpr,
    INTERLEAVED: tl.constexpr, NORM: tl.constexpr, WEIGHTED: tl.constexpr, SCALED: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    b, t = row // T, row % T
    i_P, i_R = tl.arange(0, BP), tl.arange(0, BR)
    seen_P, seen_R = i_P < P, i_R < D - 2 * P
    cos, sin = _angles(tl.load(positions_ptr + b * positions_b + t).to(tl.int64), tables_ptr, factor, i_P, seen_P, P)
    first = tl.where(INTERLEAVED, 2 * i_P, i_P)
    second = tl.where(INTERLEAVED, 2 * i_P + 1, P + i_P)
    if WEIGHTED:
        wq_first, wq_second, wk_first, wk_second = _weights(weight_ptr, first, second, seen_P, D)
        wq_rest = tl.load(weight_ptr + 2 * P + i_R, mask=seen_R, other=0.0).to(tl.float32)
        wk_rest = tl.load(weight_ptr + D + 2 * P + i_R, mask=seen_R, other=0.0).to(tl.float32)
    for begin in tl.static_range(0, N, BH):
        h = begin + tl.arange(0, BH)
        seen_H = h < N
        rows = x_ptr + b * x_b + t * x_t + h.to(tl.int64) * x_h
        x, y = _read(rows, seen_H, i_P, seen_P, P, BP, BH, INTERLEAVED)
        if BR > 1:
            seen = seen_H[:, None] & seen_R[None, :]
            r = tl.load(rows[:, None] + 2 * P + i_R[None, :], mask=seen, other=0.0).to(tl.float32)
        if NORM == 1:
            square = tl.sum(x * x, 1) + tl.sum(y * y, 1)
            if BR > 1:
                square += tl.sum(r * r, 1)
            inverse = tl.rsqrt(square / D + eps)[:, None]
            x, y = x * inverse, y * inverse
            if BR > 1:
                r = r * inverse
            if WEIGHTED:
                of_q = (h < Q)[:, None]
                x *= tl.where(of_q, wq_first[None, :], wk_first[None, :])
                y *= tl.where(of_q, wq_second[None, :], wk_second[None, :])
                if BR > 1:
                    r *= tl.where(of_q, wq_rest[None, :], wk_rest[None, :])
        x, y = x * cos - y * sin, y * cos + x * sin
        if NORM == 2:
            square = tl.sum(x * x, 1) + tl.sum(y * y, 1)
            if BR > 1:
                square += tl.sum(r * r, 1)
            inverse = tl.rsqrt(square / D + eps)[:, None]
            x, y = x * inverse, y * inverse
            if BR > 1:
                r = r * inverse
            if WEIGHTED:
                of_q = (h < Q)[:, None]
                x *= tl.where(of_q, wq_first[None, :], wk_first[None, :])
                y *= tl.where(of_q, wq_second[None, :], wk_second[None, :])
                if BR > 1:
                    r *= tl.where(of_q, wq_rest[None, :], wk_rest[None, :])
        if SCALED:
            grown = tl.where(h < Q, tl.load(scale_ptr + b * scale_b + t), 1.0)[:, None]
            x, y = x * grown, y * grown
            if BR > 1:
                r = r * grown
        out = out_ptr + b * out_b + t * out_t + h.to(tl.int64) * out_h
        _write(out, seen_H, x, y, i_P, seen_P, P, BP, BH, INTERLEAVED)
        if BR > 1:
            tl.store(out[:, None] + 2 * P + i_R[None, :], r.to(out_ptr.dtype.element_ty), mask=seen)


@triton.jit
def _backward(
    dy_ptr, x_ptr, dx_ptr, positions_ptr, tables_ptr, weight_ptr, scale_ptr, dw_ptr,
    T, rows_total, dy_b, dy_h, dy_t, x_b, x_h, x_t, dx_b, dx_h, dx_t, positions_b, scale_b, eps, factor,
    Q: tl.constexpr, N: tl.constexpr, D: tl.constexpr, P: tl.constexpr,
    BH: tl.constexpr, BP: tl.constexpr, BR: tl.constexpr, TOKENS: tl.constexpr,
    INTERLEAVED: tl.constexpr, NORM: tl.constexpr, WEIGHTED: tl.constexpr, SCALED: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0).to(tl.int64)
    i_P, i_R = tl.arange(0, BP), tl.arange(0, BR)
    seen_P, seen_R = i_P < P, i_R < D - 2 * P
    first = tl.where(INTERLEAVED, 2 * i_P, i_P)
    second = tl.where(INTERLEAVED, 2 * i_P + 1, P + i_P)
    if WEIGHTED:
        wq_first, wq_second, wk_first, wk_second = _weights(weight_ptr, first, second, seen_P, D)
        wq_rest = tl.load(weight_ptr + 2 * P + i_R, mask=seen_R, other=0.0).to(tl.float32)
        wk_rest = tl.load(weight_ptr + D + 2 * P + i_R, mask=seen_R, other=0.0).to(tl.float32)
    wq_a, wq_b, wq_r = tl.zeros([BP], tl.float32), tl.zeros([BP], tl.float32), tl.zeros([BR], tl.float32)
    wk_a, wk_b, wk_r = tl.zeros([BP], tl.float32), tl.zeros([BP], tl.float32), tl.zeros([BR], tl.float32)
    for index in range(TOKENS):
        row = program * TOKENS + index
        alive = row < rows_total
        row = tl.where(alive, row, 0)
        b, t = row // T, row % T
        cos, sin = _angles(
            tl.load(positions_ptr + b * positions_b + t).to(tl.int64), tables_ptr, factor, i_P, seen_P, P
        )
        for begin in tl.static_range(0, N, BH):
            h = begin + tl.arange(0, BH)
            seen_H = h < tl.where(alive, N, 0)
            seen = seen_H[:, None] & seen_R[None, :]
            far = h.to(tl.int64)
            from_y = dy_ptr + b * dy_b + t * dy_t + far * dy_h
            da, db = _read(from_y, seen_H, i_P, seen_P, P, BP, BH, INTERLEAVED)
            if BR > 1:
                dr = tl.load(from_y[:, None] + 2 * P + i_R[None, :], mask=seen, other=0.0).to(tl.float32)
            if SCALED:
                grown = tl.where(h < Q, tl.load(scale_ptr + b * scale_b + t), 1.0)[:, None]
                da, db = da * grown, db * grown
                if BR > 1:
                    dr = dr * grown
            if NORM > 0:
                from_x = x_ptr + b * x_b + t * x_t + far * x_h
                x, y = _read(from_x, seen_H, i_P, seen_P, P, BP, BH, INTERLEAVED)
                if NORM == 2:
                    x, y = x * cos - y * sin, y * cos + x * sin
                else:
                    da, db = da * cos + db * sin, db * cos - da * sin
                square = tl.sum(x * x, 1) + tl.sum(y * y, 1)
                if BR > 1:
                    r = tl.load(from_x[:, None] + 2 * P + i_R[None, :], mask=seen, other=0.0).to(tl.float32)
                    square += tl.sum(r * r, 1)
                inverse = tl.rsqrt(square / D + eps)[:, None]
                x, y = x * inverse, y * inverse
                if BR > 1:
                    r = r * inverse
                if WEIGHTED:
                    of_q = (h < Q)[:, None]
                    wq_a += tl.sum(tl.where(of_q, da * x, 0.0), 0)
                    wq_b += tl.sum(tl.where(of_q, db * y, 0.0), 0)
                    wk_a += tl.sum(tl.where(of_q, 0.0, da * x), 0)
                    wk_b += tl.sum(tl.where(of_q, 0.0, db * y), 0)
                    da *= tl.where(of_q, wq_first[None, :], wk_first[None, :])
                    db *= tl.where(of_q, wq_second[None, :], wk_second[None, :])
                    if BR > 1:
                        wq_r += tl.sum(tl.where(of_q, dr * r, 0.0), 0)
                        wk_r += tl.sum(tl.where(of_q, 0.0, dr * r), 0)
                        dr *= tl.where(of_q, wq_rest[None, :], wk_rest[None, :])
                mean = tl.sum(da * x, 1) + tl.sum(db * y, 1)
                if BR > 1:
                    mean += tl.sum(dr * r, 1)
                mean = (mean / D)[:, None]
                da, db = inverse * (da - x * mean), inverse * (db - y * mean)
                if BR > 1:
                    dr = inverse * (dr - r * mean)
            if NORM != 1:
                da, db = da * cos + db * sin, db * cos - da * sin
            out = dx_ptr + b * dx_b + t * dx_t + far * dx_h
            _write(out, seen_H, da, db, i_P, seen_P, P, BP, BH, INTERLEAVED)
            if BR > 1:
                tl.store(out[:, None] + 2 * P + i_R[None, :], dr.to(dx_ptr.dtype.element_ty), mask=seen)
    if WEIGHTED:
        own = dw_ptr + program * 2 * D
        tl.store(own + first, wq_a, mask=seen_P)
        tl.store(own + second, wq_b, mask=seen_P)
        tl.store(own + D + first, wk_a, mask=seen_P)
        tl.store(own + D + second, wk_b, mask=seen_P)
        if BR > 1:
            tl.store(own + 2 * P + i_R, wq_r, mask=seen_R)
            tl.store(own + D + 2 * P + i_R, wk_r, mask=seen_R)


def plan(heads: int, head_dim: int, pairs: int, tile: tuple[int, int]) -> dict[str, Any]:
    """Sizes of the kernels: heads of a tile and warps, found by benchmarks/rotary_kernel.py --sweep on an H200."""
    rest = head_dim - 2 * pairs
    blocks, warps = min(tile[0], triton.next_power_of_2(heads)), tile[1]
    return {
        "N": heads,
        "D": head_dim,
        "P": pairs,
        "BH": blocks,
        "BP": triton.next_power_of_2(pairs),
        "BR": triton.next_power_of_2(rest + 1) if rest else 1,
        "num_warps": warps,
    }


def forward(
    x_BNTD: Tensor,
    positions: Tensor,
    tables: Tensor,
    weight_2D: Tensor | None,
    scale: Tensor | None,
    *,
    queries: int,
    interleaved: bool,
    norm: int,
    eps: float,
    factor: float,
    tile: tuple[int, int] | None = None,
) -> Tensor:
    """Rotated heads in fresh memory [B, T, N, D], returned as [B, N, T, D]. Arguments as in `ops.rotary_heads`."""
    batch, heads, tokens, head_dim = x_BNTD.shape
    out = torch.empty((batch, tokens, heads, head_dim), dtype=x_BNTD.dtype, device=x_BNTD.device).transpose(1, 2)
    if x_BNTD.numel():
        _forward[(batch * tokens,)](
            x_BNTD, out, positions, tables, weight_2D, scale,
            tokens, *x_BNTD.stride()[:3], *out.stride()[:3], row_stride(positions), row_stride(scale), eps, factor,
            Q=queries, INTERLEAVED=interleaved, NORM=norm, WEIGHTED=weight_2D is not None, SCALED=scale is not None,
            **plan(heads, head_dim, tables.shape[-1], tile or ((16, 4) if norm and interleaved else (8, 4))),
        )  # fmt: skip
    return out


def backward(
    dy_BNTD: Tensor,
    x_BNTD: Tensor,
    positions: Tensor,
    tables: Tensor,
    weight_2D: Tensor | None,
    scale: Tensor | None,
    *,
    queries: int,
    interleaved: bool,
    norm: int,
    eps: float,
    factor: float,
    tile: tuple[int, int] | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Gradients of the heads and of the norm's weights; the sum over tokens has a fixed order."""
    batch, heads, tokens, head_dim = dy_BNTD.shape
    dx = torch.empty((batch, tokens, heads, head_dim), dtype=dy_BNTD.dtype, device=dy_BNTD.device).transpose(1, 2)
    each = 4 if weight_2D is not None else 1
    programs = -(-batch * tokens // each)
    partial = None
    if weight_2D is not None:
        partial = torch.zeros((programs, 2, head_dim), dtype=torch.float32, device=dy_BNTD.device)
    if dy_BNTD.numel():
        dy_BNTD = dy_BNTD if dy_BNTD.stride(-1) == 1 else dy_BNTD.contiguous()
        _backward[(programs,)](
            dy_BNTD, x_BNTD, dx, positions, tables, weight_2D, scale, partial,
            tokens, batch * tokens, *dy_BNTD.stride()[:3], *x_BNTD.stride()[:3], *dx.stride()[:3],
            row_stride(positions), row_stride(scale), eps, factor,
            Q=queries, INTERLEAVED=interleaved, NORM=norm, WEIGHTED=weight_2D is not None, SCALED=scale is not None,
            TOKENS=each, **plan(heads, head_dim, tables.shape[-1], tile or ((16, 2) if norm else (8, 2))),
        )  # fmt: skip
    return dx, None if partial is None or weight_2D is None else partial.sum(0).to(weight_2D.dtype)


def row_stride(x: Tensor | None) -> int:
    """Stride of the rows of [B or 1, T]; 0 where one row serves all."""
    return 0 if x is None or x.shape[0] == 1 else x.stride(0)
