"""Rotation of query and key heads from positions, with RMS norm and a factor by position in the same pass.

Legend: B batch, N heads (queries, then keys), T tokens, D head dim, P <= D/2 pairs that rotate.
A CUDA device runs one Triton kernel, forward and backward; everything else runs the reference, whose shapes are static
and which reads nothing on the host.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from aptlab.ops.rotary import rotate_pairs_reference

STEP = 4096
KINDS = (torch.float32, torch.bfloat16, torch.float16)
KernelTensors = tuple[Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None]


class HeadNorm(NamedTuple):
    """x / rms(x) · weight over each head, "before" or "after" its rotation; weight [2, D] for queries, keys."""

    weight: Tensor | None
    eps: float
    where: str


class RotationArgs(NamedTuple):
    """How heads rotate.

    positions  int [B or 1, T]
    tables     float32 [4, 4096, P]: cos and sin of hi · 4096 · theta, cos and sin of lo · theta
    theta      float64 [P], the radians per token that the tables are made of: float32 heads rotate by these
    queries    the first heads, which `scale` multiplies and which have the first row of the norm's weight
    factor     on cos and sin
    scale      float32 [B or 1, T]
    """

    positions: Tensor
    tables: Tensor
    queries: int
    layout: str = "half"
    norm: HeadNorm | None = None
    factor: float = 1.0
    scale: Tensor | None = None
    theta: Tensor | None = None


def rotate_heads_reference(x_BNTD: Tensor, args: RotationArgs) -> Tensor:
    """[norm ->] rotation [-> norm] [-> scale of queries], rounded once.

    Errors against float64, in units in the last place of the output (of the pair's length sqrt(a² + b²) where said):

    bfloat16, float16     1; arithmetic is float32, so a value far below its pair's length is off by more of its own
    float32 with theta    1 (0.50 measured); arithmetic and angles are float64
    float32 by tables     2 of the pair's length (1.41 measured): arithmetic is float64, but each of the two factors of
                          the angle is rounded by up to sqrt(2) · 2^-25, 1.42 units together, and the output by a half
    """
    exact = x_BNTD.dtype in (torch.float32, torch.float64)
    wide = x_BNTD.double() if exact else x_BNTD.float()
    if args.norm is not None and args.norm.where == "before":
        wide = normalize_heads(wide, args.norm, args.queries)
    cos, sin = (x.unsqueeze(1) * args.factor for x in compute_angles(args, wide.dtype))
    wide = rotate_pairs_reference(wide, cos, sin, layout=args.layout)
    if args.norm is not None and args.norm.where == "after":
        wide = normalize_heads(wide, args.norm, args.queries)
    if args.scale is not None:
        q, k = wide.tensor_split([args.queries], dim=1)
        wide = torch.cat((q * args.scale[:, None, :, None], k), dim=1)
    return wide.to(x_BNTD.dtype)


def compute_angles(args: RotationArgs, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosines and sines [B or 1, T, P]."""
    if args.theta is not None and dtype == torch.float64:
        angle = args.positions.unsqueeze(-1) * args.theta
        return angle.cos(), angle.sin()
    hi, lo = args.positions.div(STEP, rounding_mode="floor"), args.positions % STEP
    hi_cos, hi_sin, lo_cos, lo_sin = (
        table[at].to(dtype) for table, at in zip(args.tables, (hi, hi, lo, lo), strict=True)
    )
    return hi_cos * lo_cos - hi_sin * lo_sin, hi_sin * lo_cos + hi_cos * lo_sin


def normalize_heads(x_BNTD: Tensor, norm: HeadNorm, queries: int) -> Tensor:
    x_BNTD = x_BNTD * torch.rsqrt(x_BNTD.pow(2).mean(-1, keepdim=True) + norm.eps)
    if norm.weight is None:
        return x_BNTD
    q, k = x_BNTD.tensor_split([queries], dim=1)
    return torch.cat((q * norm.weight[0], k * norm.weight[1]), dim=1)


def rotate_heads(x_BNTD: Tensor, args: RotationArgs) -> Tensor:
    """Rotated heads [B, N, T, D], with the errors of `rotate_heads_reference`; x may be a strided view.

    Gradients reach x and the norm's weight, not the tables.
    """
    if not can_use_kernel(x_BNTD):
        return rotate_heads_reference(x_BNTD, args)
    run = _rotated if torch.compiler.is_compiling() else _Rotated.apply  # the op costs a small model 0.1 ms a call
    tensors, how = pack_kernel_arguments(args)
    return run(ensure_unit_stride(x_BNTD), *tensors, *how)


@torch.no_grad()
def rotate_heads_(x_BNTD: Tensor, args: RotationArgs) -> Tensor:
    """`rotate_heads` written over x, which is returned: half the memory, and less traffic while x fits a cache.

    For reading a prompt and for decoding: no gradient is kept.
    """
    if not can_use_kernel(x_BNTD) or x_BNTD.stride(-1) != 1:
        return x_BNTD.copy_(rotate_heads(x_BNTD, args))
    from aptlab.ops.triton import rotary as kernel

    tensors, how = pack_kernel_arguments(args)
    kernel.rotate_forward(x_BNTD, *tensors, kernel.KernelSpec(*how), out=x_BNTD)
    if not x_BNTD.is_inference():
        torch.autograd.graph.increment_version(x_BNTD)  # whoever kept x for a gradient is told
    return x_BNTD


def pack_kernel_arguments(args: RotationArgs) -> tuple[KernelTensors, tuple[int, bool, int, float, float]]:
    """Of the ops, behind the heads: tensors, and how they rotate (the fields of the kernel's `KernelSpec`)."""
    norm = args.norm or HeadNorm(None, 0.0, "")
    kind = {"": 0, "before": 1, "after": 2}[norm.where]
    weight = None if norm.weight is None else norm.weight.contiguous()
    scale = None if args.scale is None else ensure_unit_stride(args.scale)
    tensors = ensure_unit_stride(args.positions), args.tables, args.theta, weight, scale
    return tensors, (args.queries, args.layout == "interleaved", kind, norm.eps, args.factor)


def ensure_unit_stride(x: Tensor) -> Tensor:
    """x with neighbours of the last dim side by side, as the kernel reads them."""
    return x if x.stride(-1) == 1 else x.contiguous()


def can_use_kernel(x: Tensor) -> bool:
    """Whether the kernel takes these heads."""
    return x.is_cuda and x.dtype in KINDS


@torch.library.custom_op("aptlab::rotate_heads", mutates_args=())
def _rotated(
    x: Tensor,
    positions: Tensor,
    tables: Tensor,
    theta: Tensor | None,
    weight: Tensor | None,
    scale: Tensor | None,
    queries: int,
    interleaved: bool,
    norm: int,
    eps: float,
    factor: float,
) -> Tensor:
    from aptlab.ops.triton import rotary as kernel

    how = kernel.KernelSpec(queries, interleaved, norm, eps, factor)
    return kernel.rotate_forward(x, positions, tables, theta, weight, scale, how)


@_rotated.register_fake
def _(x, positions, tables, theta, weight, scale, queries, interleaved, norm, eps, factor):
    batch, heads, tokens, head_dim = x.shape
    return x.new_empty((batch, tokens, heads, head_dim)).transpose(1, 2)


@torch.library.custom_op("aptlab::rotate_heads_backward", mutates_args=())
def _rotated_back(
    dy: Tensor,
    x: Tensor,
    positions: Tensor,
    tables: Tensor,
    theta: Tensor | None,
    weight: Tensor | None,
    scale: Tensor | None,
    queries: int,
    interleaved: bool,
    norm: int,
    eps: float,
    factor: float,
) -> tuple[Tensor, Tensor]:
    from aptlab.ops.triton import rotary as kernel

    how = kernel.KernelSpec(queries, interleaved, norm, eps, factor)
    dx, dw = kernel.rotate_backward(dy, x, positions, tables, theta, weight, scale, how)
    return dx, dy.new_empty(0) if dw is None else dw


@_rotated_back.register_fake
def _(dy, x, positions, tables, theta, weight, scale, queries, interleaved, norm, eps, factor):
    batch, heads, tokens, head_dim = dy.shape
    dx = dy.new_empty((batch, tokens, heads, head_dim)).transpose(1, 2)
    return dx, dy.new_empty(0) if weight is None else torch.empty_like(weight)


class _Rotated(torch.autograd.Function):
    """The op without the dispatcher, for eager code."""

    @staticmethod
    def forward(ctx, x, positions, tables, theta, weight, scale, *how):
        from aptlab.ops.triton import rotary as kernel

        ctx.how = kernel.KernelSpec(*how)
        ctx.save_for_backward(x if ctx.how.norm else None, positions, tables, theta, weight, scale)
        return kernel.rotate_forward(x, positions, tables, theta, weight, scale, ctx.how)

    @staticmethod
    def backward(ctx, *grads):
        from aptlab.ops.triton import rotary as kernel

        x, positions, tables, theta, weight, scale = ctx.saved_tensors
        x = grads[0] if x is None else x
        dx, dw = kernel.rotate_backward(grads[0], x, positions, tables, theta, weight, scale, ctx.how)
        return dx, None, None, None, dw, None, None, None, None, None, None


def _keep(ctx, inputs, output) -> None:
    x, *tensors, queries, interleaved, norm, eps, factor = inputs
    ctx.save_for_backward(x if norm else None, *tensors)
    ctx.how = queries, interleaved, norm, eps, factor


def _back(ctx, dy: Tensor):
    x, *tensors = ctx.saved_tensors
    dx, dw = _rotated_back(dy, dy if x is None else x, *tensors, *ctx.how)
    weight = tensors[3]
    return dx, None, None, None, None if weight is None else dw, None, None, None, None, None, None


_rotated.register_autograd(_back, setup_context=_keep)
