# pyright: reportOperatorIssue=false, reportCallIssue=false, reportIndexIssue=false, reportGeneralTypeIssues=false
# pyright: reportArgumentType=false, reportAssignmentType=false
"""Rotation of all query and key heads of a token in one pass over memory, with RMS norm fused in if asked.

Legend: B batch, N query and key heads side by side, T tokens, H heads of a tile, D head dim, P rotary pairs, R dims
that stay. A program reads one token (several, where weights get gradients): its cosines and sines come from two small
tables that stay in the cache of the device and serve every head.

Results are rounded once, at the store. Arithmetic is float32 for bfloat16 and float16, and float64 for float32, whose
output would show what a float32 product loses. Offsets are 64-bit.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from aptlab.ops.triton.tiles import Tile, choose_backward_tile, choose_forward_tile, choose_heads_per_tile

NORMS = {None: 0, "before": 1, "after": 2}


@triton.jit
def _angles(
    position, tables, theta, FACTOR: tl.constexpr, KIND: tl.constexpr, P: tl.constexpr, BP: tl.constexpr,
    KEEP: tl.constexpr,
):  # fmt: skip
    """Cosine and sine [1, P] of position · theta: by the tables, where position = hi · 4096 + lo, or in float64."""
    p = tl.arange(0, BP)
    seen = p < P
    if theta is None:
        size = 4096 * P
        hi, lo = (position // 4096) * P + p, (position % 4096) * P + p
        hi_cos = tl.load(tables + hi, mask=seen, other=0.0, eviction_policy=KEEP).to(KIND)
        hi_sin = tl.load(tables + size + hi, mask=seen, other=0.0, eviction_policy=KEEP).to(KIND)
        lo_cos = tl.load(tables + 2 * size + lo, mask=seen, other=0.0, eviction_policy=KEEP).to(KIND)
        lo_sin = tl.load(tables + 3 * size + lo, mask=seen, other=0.0, eviction_policy=KEEP).to(KIND)
        cos, sin = hi_cos * lo_cos - hi_sin * lo_sin, hi_sin * lo_cos + hi_cos * lo_sin
    else:
        angle = position.to(tl.float64) * tl.load(theta + p, mask=seen, other=0.0)
        cos, sin = tl.cos(angle), tl.sin(angle)
    factor = tl.full((1,), FACTOR, KIND)  # an argument of a kernel would be float32
    return (cos * factor)[None, :], (sin * factor)[None, :]


@triton.jit
def _read(
    rows, seen, KIND: tl.constexpr, P: tl.constexpr, BP: tl.constexpr, R: tl.constexpr, BR: tl.constexpr,
    BH: tl.constexpr, INTERLEAVED: tl.constexpr,
):  # fmt: skip
    """First and second members [H, P] of the pairs and the rest [H, R], as KIND."""
    rows, seen, p = rows[:, None], seen[:, None], tl.arange(0, BP)[None, :]
    if INTERLEAVED:
        c = tl.arange(0, 2 * BP)[None, :]
        both = tl.load(rows + c, mask=seen & (c < 2 * P), other=0.0).to(KIND)
        a, b = tl.split(tl.reshape(both, (BH, BP, 2)))
    else:
        a = tl.load(rows + p, mask=seen & (p < P), other=0.0).to(KIND)
        b = tl.load(rows + P + p, mask=seen & (p < P), other=0.0).to(KIND)
    r = a
    if R > 0:
        i = tl.arange(0, BR)[None, :]
        r = tl.load(rows + 2 * P + i, mask=seen & (i < R), other=0.0).to(KIND)
    return a, b, r


@triton.jit
def _write(
    rows, seen, a, b, r, P: tl.constexpr, BP: tl.constexpr, R: tl.constexpr, BR: tl.constexpr,
    BH: tl.constexpr, INTERLEAVED: tl.constexpr,
):  # fmt: skip
    kind = rows.dtype.element_ty
    rows, seen, p = rows[:, None], seen[:, None], tl.arange(0, BP)[None, :]
    if INTERLEAVED:
        c = tl.arange(0, 2 * BP)[None, :]
        both = tl.reshape(tl.join(a, b), (BH, 2 * BP))
        tl.store(rows + c, both.to(kind), mask=seen & (c < 2 * P))
    else:
        tl.store(rows + p, a.to(kind), mask=seen & (p < P))
        tl.store(rows + P + p, b.to(kind), mask=seen & (p < P))
    if R > 0:
        i = tl.arange(0, BR)[None, :]
        tl.store(rows + 2 * P + i, r.to(kind), mask=seen & (i < R))


@triton.jit
def _weights(
    weight, ROW: tl.constexpr, KIND: tl.constexpr, D: tl.constexpr, P: tl.constexpr, BP: tl.constexpr,
    R: tl.constexpr, BR: tl.constexpr, INTERLEAVED: tl.constexpr,
):  # fmt: skip
    """The norm's weights of both members [1, P] of the pairs and of the rest [1, R]; ones where there are none."""
    if weight is None:
        a, r = tl.full((BP,), 1.0, KIND), tl.full((BR,), 1.0, KIND)
        b = a
    else:
        p, i = tl.arange(0, BP), tl.arange(0, BR)
        pointers = weight + ROW * D
        a = tl.load(pointers + tl.where(INTERLEAVED, 2 * p, p), mask=p < P, other=0.0).to(KIND)
        b = tl.load(pointers + tl.where(INTERLEAVED, 2 * p + 1, P + p), mask=p < P, other=0.0).to(KIND)
        r = tl.load(pointers + 2 * P + i, mask=i < R, other=0.0).to(KIND)
    return a[None, :], b[None, :], r[None, :]


@triton.jit
def _normed(a, b, r, EPS: tl.constexpr, D: tl.constexpr, R: tl.constexpr):
    """Heads over their root mean square, and its inverse [H, 1]."""
    square = tl.sum(a * a, 1) + tl.sum(b * b, 1)
    if R > 0:
        square += tl.sum(r * r, 1)
    inverse = tl.rsqrt(square / D + tl.full((1,), EPS, square.dtype))[:, None]  # an argument would be float32
    return a * inverse, b * inverse, r * inverse, inverse


@triton.jit
def _forward(
    x_ptr, out_ptr, positions_ptr, tables_ptr, theta_ptr, weight_ptr, scale_ptr,
    T, x_b, x_h, x_t, out_b, out_h, out_t, positions_b, scale_b,
    FACTOR: tl.constexpr, EPS: tl.constexpr, KIND: tl.constexpr,
    Q: tl.constexpr, N: tl.constexpr, D: tl.constexpr, P: tl.constexpr, R: tl.constexpr,
    BP: tl.constexpr, BR: tl.constexpr, BH: tl.constexpr,
    INTERLEAVED: tl.constexpr, NORM: tl.constexpr, BACK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    b, t = row // T, row % T
    x_at, out_at = x_ptr + b * x_b + t * x_t, out_ptr + b * out_b + t * out_t
    start = tl.arange(0, BH)
    # The heads are asked for before the angles, and the next before these are written: a store could touch what a later
    # load reads, for all the compiler knows, so it does not swap them. Tables are read by everyone and asked to stay in
    # the cache; heads carry no hint: though each is read once, asking the cache to drop them first made it slower.
    x, y, r = _read(x_at + start.to(tl.int64) * x_h, start < N, KIND, P, BP, R, BR, BH, INTERLEAVED)
    position = tl.load(positions_ptr + b * positions_b + t).to(tl.int64)
    cos, sin = _angles(position, tables_ptr, theta_ptr, FACTOR, KIND, P, BP, "evict_last")
    if BACK:
        sin = -sin
    qa, qb, qr = _weights(weight_ptr, 0, KIND, D, P, BP, R, BR, INTERLEAVED)
    ka, kb, kr = _weights(weight_ptr, 1, KIND, D, P, BP, R, BR, INTERLEAVED)
    for begin in tl.static_range(0, N, BH):
        h = begin + start
        of_q = (h < Q)[:, None]
        wa, wb, wr = tl.where(of_q, qa, ka), tl.where(of_q, qb, kb), tl.where(of_q, qr, kr)
        if NORM == 1:
            x, y, r, _ = _normed(x, y, r, EPS, D, R)
            x, y, r = x * wa, y * wb, r * wr
        u, v, w = x * cos - y * sin, y * cos + x * sin, r
        if NORM == 2:
            u, v, w, _ = _normed(u, v, w, EPS, D, R)
            u, v, w = u * wa, v * wb, w * wr
        if scale_ptr is not None:
            grown = tl.where(of_q, tl.load(scale_ptr + b * scale_b + t), 1.0)
            u, v, w = u * grown, v * grown, w * grown
        if begin + BH < N:
            far = h + BH
            x, y, r = _read(x_at + far.to(tl.int64) * x_h, far < N, KIND, P, BP, R, BR, BH, INTERLEAVED)
        _write(out_at + h.to(tl.int64) * out_h, h < N, u, v, w, P, BP, R, BR, BH, INTERLEAVED)


@triton.jit
def _rotate_back(
    da, db, dr, x, y, r, cos, sin, wa, wb, wr, sum_a, sum_b, sum_r,
    EPS: tl.constexpr, D: tl.constexpr, R: tl.constexpr, NORM: tl.constexpr, WEIGHTED: tl.constexpr,
):  # fmt: skip
    """Gradient of norm and rotation: n = x / rms, u = n w, dx = (du w - n mean(du w n)) / rms, dw = sum(du n)."""
    if NORM == 1:
        da, db = da * cos + db * sin, db * cos - da * sin
    else:
        x, y = x * cos - y * sin, y * cos + x * sin
    x, y, r, inverse = _normed(x, y, r, EPS, D, R)
    if WEIGHTED:
        sum_a, sum_b = sum_a + da * x, sum_b + db * y
        if R > 0:
            sum_r = sum_r + dr * r
        da, db, dr = da * wa, db * wb, dr * wr
    mean = tl.sum(da * x + db * y, 1)
    if R > 0:
        mean += tl.sum(dr * r, 1)
    mean = (mean / D)[:, None]
    da, db, dr = (da - x * mean) * inverse, (db - y * mean) * inverse, (dr - r * mean) * inverse
    if NORM == 2:
        da, db = da * cos + db * sin, db * cos - da * sin
    return da, db, dr, sum_a, sum_b, sum_r


@triton.jit
def _part_back(
    dy, x, dx, dy_h, x_h, dx_h, cos, sin, wa, wb, wr, scale, sum_a, sum_b, sum_r,
    COUNT: tl.constexpr, EPS: tl.constexpr, KIND: tl.constexpr, D: tl.constexpr, P: tl.constexpr, R: tl.constexpr,
    BP: tl.constexpr, BR: tl.constexpr, BH: tl.constexpr,
    INTERLEAVED: tl.constexpr, NORM: tl.constexpr, WEIGHTED: tl.constexpr,
):  # fmt: skip
    """Write gradients of the COUNT heads of one token from the given addresses on, and add to the weights' sums.

    As in `_forward`, the next heads are asked for before these are written.
    """
    GIVEN: tl.constexpr = x.dtype.element_ty
    h = tl.arange(0, BH)
    i = h.to(tl.int64)
    ga, gb, gr = _read(dy + i * dy_h, h < COUNT, GIVEN, P, BP, R, BR, BH, INTERLEAVED)
    xa, xb, xr = _read(x + i * x_h, h < COUNT, GIVEN, P, BP, R, BR, BH, INTERLEAVED)
    for begin in range(0, COUNT, BH):
        da, db, dr = ga.to(KIND) * scale, gb.to(KIND) * scale, gr.to(KIND) * scale
        da, db, dr, sum_a, sum_b, sum_r = _rotate_back(
            da, db, dr, xa.to(KIND), xb.to(KIND), xr.to(KIND), cos, sin, wa, wb, wr, sum_a, sum_b, sum_r,
            EPS, D, R, NORM, WEIGHTED,
        )  # fmt: skip
        far = i + begin
        if COUNT > BH:
            seen = far + BH < COUNT
            ga, gb, gr = _read(dy + (far + BH) * dy_h, seen, GIVEN, P, BP, R, BR, BH, INTERLEAVED)
            xa, xb, xr = _read(x + (far + BH) * x_h, seen, GIVEN, P, BP, R, BR, BH, INTERLEAVED)
        _write(dx + far * dx_h, far < COUNT, da, db, dr, P, BP, R, BR, BH, INTERLEAVED)
    return sum_a, sum_b, sum_r


@triton.jit(do_not_specialize=["T", "rows", "positions_b", "scale_b"])
def _backward(
    dy_ptr, x_ptr, dx_ptr, positions_ptr, tables_ptr, theta_ptr, weight_ptr, scale_ptr, sums_ptr,
    T, rows, dy_b, dy_h, dy_t, x_b, x_h, x_t, dx_b, dx_h, dx_t, positions_b, scale_b,
    FACTOR: tl.constexpr, EPS: tl.constexpr, KIND: tl.constexpr,
    Q: tl.constexpr, N: tl.constexpr, D: tl.constexpr, P: tl.constexpr, R: tl.constexpr,
    BP: tl.constexpr, BR: tl.constexpr, BQ: tl.constexpr, BK: tl.constexpr,
    INTERLEAVED: tl.constexpr, NORM: tl.constexpr, DENSE: tl.constexpr,
):  # fmt: skip
    WEIGHTED: tl.constexpr = weight_ptr is not None
    if DENSE:
        dy_h, x_h, dx_h = D, D, D
    # Sums keep a place for each head of a tile: to add heads up for every token would make all warps wait each time.
    qa, qr = tl.zeros((BQ, BP), KIND), tl.zeros((BQ, BR), KIND)
    ka, kr = tl.zeros((BK, BP), KIND), tl.zeros((BK, BR), KIND)
    qb, kb = qa, ka
    for row in range(tl.program_id(0), rows, tl.num_programs(0)):
        b, t = (row // T).to(tl.int64), (row % T).to(tl.int64)
        position = tl.load(positions_ptr + b * positions_b + t).to(tl.int64)
        cos, sin = _angles(position, tables_ptr, theta_ptr, FACTOR, KIND, P, BP, "")
        grown = tl.full((1, 1), 1.0, KIND)
        if scale_ptr is not None:
            grown *= tl.load(scale_ptr + b * scale_b + t)
        dy, x, dx = dy_ptr + b * dy_b + t * dy_t, x_ptr + b * x_b + t * x_t, dx_ptr + b * dx_b + t * dx_t
        # Weights are read again for each token, from the cache: kept, they would cost registers, and so programs.
        wa, wb, wr = _weights(weight_ptr, 0, KIND, D, P, BP, R, BR, INTERLEAVED)
        qa, qb, qr = _part_back(
            dy, x, dx, dy_h, x_h, dx_h, cos, sin, wa, wb, wr, grown, qa, qb, qr,
            Q, EPS, KIND, D, P, R, BP, BR, BQ, INTERLEAVED, NORM, WEIGHTED,
        )  # fmt: skip
        wa, wb, wr = _weights(weight_ptr, 1, KIND, D, P, BP, R, BR, INTERLEAVED)
        far = tl.full((), Q, tl.int64)
        ka, kb, kr = _part_back(
            dy + far * dy_h, x + far * x_h, dx + far * dx_h, dy_h, x_h, dx_h, cos, sin, wa, wb, wr, 1.0,
            ka, kb, kr, N - Q, EPS, KIND, D, P, R, BP, BR, BK, INTERLEAVED, NORM, WEIGHTED,
        )  # fmt: skip
    if WEIGHTED:
        two = tl.arange(0, 2)
        sums = sums_ptr + tl.program_id(0).to(tl.int64) * 2 * D + two * D
        of_q = (two == 0)[:, None]
        a = tl.where(of_q, tl.sum(qa, 0)[None, :], tl.sum(ka, 0)[None, :])
        b = tl.where(of_q, tl.sum(qb, 0)[None, :], tl.sum(kb, 0)[None, :])
        r = tl.where(of_q, tl.sum(qr, 0)[None, :], tl.sum(kr, 0)[None, :])
        _write(sums, two < 2, a, b, r, P, BP, R, BR, 2, INTERLEAVED)


class KernelSpec(NamedTuple):
    """What a rotation does: query heads, layout, place of the norm (`NORMS`), its epsilon, factor on cos and sin."""

    queries: int
    interleaved: bool
    norm: int
    eps: float
    factor: float


def build_kernel_constants(x_BNTD: Tensor, tables: Tensor, how: KernelSpec) -> dict[str, Any]:
    """What both kernels are compiled for."""
    head_dim, pairs = x_BNTD.shape[-1], tables.shape[-1]
    rest = head_dim - 2 * pairs
    return {
        "FACTOR": how.factor, "EPS": how.eps, "KIND": tl.float64 if uses_float64(x_BNTD) else tl.float32,
        "Q": how.queries, "N": x_BNTD.shape[1], "D": head_dim, "P": pairs, "R": rest,
        "BP": triton.next_power_of_2(pairs), "BR": triton.next_power_of_2(max(rest, 1)),
        "INTERLEAVED": how.interleaved, "NORM": how.norm,
    }  # fmt: skip


def rotate_forward(
    x_BNTD: Tensor,
    positions: Tensor,
    tables: Tensor,
    theta: Tensor | None,
    weight_2D: Tensor | None,
    scale: Tensor | None,
    how: KernelSpec,
    *,
    out: Tensor | None = None,
    tile: Tile | None = None,
    back: bool = False,
) -> Tensor:
    """Rotated heads [B, N, T, D]. Arguments as in `ops.rotary_heads`.

    out    where to write, x itself perhaps: a program has read a head before it writes it; None = fresh [B, T, N, D]
    back   rotate by -angle: the gradient, where there is no norm
    """
    (batch, heads, tokens, _), out = x_BNTD.shape, allocate_heads(x_BNTD) if out is None else out
    tile = tile or choose_forward_tile(how.norm, tables.shape[-1], interleaved=how.interleaved)
    if x_BNTD.numel():
        _forward[(batch * tokens,)](
            x_BNTD, out, positions, tables, theta if uses_float64(x_BNTD) else None, weight_2D, scale,
            tokens, *x_BNTD.stride()[:3], *out.stride()[:3], get_row_stride(positions), get_row_stride(scale),
            **build_kernel_constants(x_BNTD, tables, how), BH=min(tile.heads, triton.next_power_of_2(heads)),
            BACK=back, num_warps=tile.warps,
        )  # fmt: skip
    return out


def rotate_backward(
    dy_BNTD: Tensor,
    x_BNTD: Tensor,
    positions: Tensor,
    tables: Tensor,
    theta: Tensor | None,
    weight_2D: Tensor | None,
    scale: Tensor | None,
    how: KernelSpec,
    *,
    tile: Tile | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Gradients of the heads and of the norm's weights; the sum over tokens has an order fixed by the device."""
    dy_BNTD = dy_BNTD if dy_BNTD.stride(-1) == 1 else dy_BNTD.contiguous()
    if how.norm == 0:
        return rotate_forward(dy_BNTD, positions, tables, theta, None, scale, how, tile=tile, back=True), None
    (batch, heads, tokens, head_dim), dx, sums = x_BNTD.shape, allocate_heads(x_BNTD), None
    tile = tile or choose_backward_tile(tables.shape[-1], weighted=weight_2D is not None)
    rows = programs = batch * tokens
    if weight_2D is not None:
        device = torch.cuda.get_device_properties(x_BNTD.device) if x_BNTD.is_cuda else None
        programs = min(rows, tile.programs * (device.multi_processor_count if device else 1))
        kind = torch.float64 if uses_float64(x_BNTD) else torch.float32
        sums = torch.empty((programs, 2, head_dim), dtype=kind, device=x_BNTD.device)
    if x_BNTD.numel():
        _backward[(programs,)](
            dy_BNTD, x_BNTD, dx, positions, tables, theta if uses_float64(x_BNTD) else None, weight_2D, scale, sums,
            tokens, rows, *dy_BNTD.stride()[:3], *x_BNTD.stride()[:3], *dx.stride()[:3],
            get_row_stride(positions), get_row_stride(scale), **build_kernel_constants(x_BNTD, tables, how),
            BQ=choose_heads_per_tile(how.queries, tile.heads),
            BK=choose_heads_per_tile(heads - how.queries, tile.heads),
            DENSE=dy_BNTD.stride(1) == x_BNTD.stride(1) == head_dim, num_warps=tile.warps,
        )  # fmt: skip
    return dx, None if sums is None or weight_2D is None else sums.sum(0).to(weight_2D.dtype)


def uses_float64(x: Tensor) -> bool:
    """Whether arithmetic is float64."""
    return x.dtype == torch.float32


def allocate_heads(x_BNTD: Tensor) -> Tensor:
    batch, heads, tokens, head_dim = x_BNTD.shape
    return x_BNTD.new_empty((batch, tokens, heads, head_dim)).transpose(1, 2)


def get_row_stride(x: Tensor | None) -> int:
    """Stride of the rows of [B or 1, T]; 0 where one row serves all."""
    return 0 if x is None or x.shape[0] == 1 else x.stride(0)
