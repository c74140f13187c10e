"""A branch joins the residual stream, gated per token or as it is, and the RMS norm that reads the sum: one op.

Legend: B batch, T tokens, C dim, R = B·T rows. A CUDA device runs one Triton kernel forward and one backward;
everything else runs the reference. Gradients reach u, delta and the norm's weight; the gate is a constant of the
backward pass, and the previous step, its angle and the lift take none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from aptlab.ops.measure import GUARD, compute_rms, upcast_to_float32

KINDS = (torch.float32, torch.bfloat16, torch.float16)
WIDEST = 8192  # a program keeps whole rows in registers


class GateArgs(NamedTuple):
    """Numbers of the gate of `aptlab.nn.smooth.LeftSpin`, kind normalized, not differentiated.

    baseline  softplus(-tau), subtracted so that the angle of nothing is zero
    guard     added to the size of the stream
    zero      a token whose step is not finite takes none
    keep      hand the applied step on, as depth history needs it
    """

    alpha: float
    tau: float
    beta: float
    kappa: float
    baseline: float
    w1: float
    w2: float
    guard: float
    zero: bool = False
    keep: bool = True


class JoinArgs(NamedTuple):
    """How a branch joins.

    gate    None = u + delta
    step    [B, T, C], what the previous block applied; phi float32 [B, T, 1], its angle; both None in the first block
    lift    [B, T, 1], added to the strength
    weight  [C] of the RMS norm that reads the new stream, None = none does; eps of it
    """

    gate: GateArgs | None = None
    step: Tensor | None = None
    phi: Tensor | None = None
    lift: Tensor | None = None
    weight: Tensor | None = None
    eps: float = 1e-5


class JoinOutput(NamedTuple):
    """What a join gives.

    stream, normed           [B, T, C] in u's dtype; normed None without a weight
    step                     [B, T, C] in delta's dtype, detached; None unless kept
    strength, angle, gate    float32 [B, T, 1], detached; None without a gate, as is
    size                     rms(delta), float32 [B, T, 1]: not finite where the step is not
    """

    stream: Tensor
    normed: Tensor | None = None
    step: Tensor | None = None
    strength: Tensor | None = None
    angle: Tensor | None = None
    gate: Tensor | None = None
    size: Tensor | None = None


def join_norm(u_BTC: Tensor, delta_BTC: Tensor, args: JoinArgs) -> JoinOutput:
    """u + g·delta and its RMS norm, by the kernel where it runs; both may be strided views."""
    if not can_use_kernel(u_BTC, delta_BTC):
        return join_norm_reference(u_BTC, delta_BTC, args)
    return join_norm_kernel(u_BTC, delta_BTC, args)


def can_use_kernel(u: Tensor, delta: Tensor) -> bool:
    """Whether the kernel takes this stream and branch."""
    if not u.is_cuda or u.dtype not in KINDS or delta.dtype not in KINDS or u.shape != delta.shape:
        return False
    # A transform of torch.func has no rule for the kernel; asked outside of a graph alone, as dynamo knows no other.
    return u.shape[-1] <= WIDEST and (torch.compiler.is_compiling() or not torch._C._are_functorch_transforms_active())


def join_norm_reference(u_BTC: Tensor, delta_BTC: Tensor, args: JoinArgs) -> JoinOutput:
    """The equations of `LeftSpin` and `RMSNorm` in float32 (float64 stays), rounded once each.

    Beside float64 the kernel is off by at most a unit in the last place of bfloat16 or float16 stored, and by
    2e-6 of the largest value of a row in float32.
    """
    if args.gate is None:
        stream = (u_BTC + delta_BTC).to(u_BTC.dtype)
        return JoinOutput(stream, normalize_rows(stream, args))
    u, delta, gate = upcast_to_float32(u_BTC), upcast_to_float32(delta_BTC), args.gate
    size = compute_rms(delta.detach())
    given = size
    if gate.zero:
        delta = torch.where(size.isfinite(), delta, torch.zeros_like(delta))
        size = compute_rms(delta.detach())
    s = gate.w1 * (size / (compute_rms(u.detach()) + gate.guard))
    if args.step is not None and gate.w2:
        before = upcast_to_float32(args.step)
        s = s + gate.w2 * (compute_rms(delta.detach() - before) / (size + compute_rms(before) + GUARD))
    lifted = s if args.lift is None else s + args.lift
    phi = gate.alpha * (F.softplus(lifted - gate.tau, beta=gate.kappa) - gate.baseline).clamp_min(0)
    if args.phi is not None:
        phi = (1 - gate.beta) * args.phi + gate.beta * phi
    g = (1 + phi.square()).rsqrt()
    step = g * delta
    stream = (u + step).to(u_BTC.dtype)
    kept = step.detach().to(delta_BTC.dtype) if gate.keep else None
    return JoinOutput(stream, normalize_rows(stream, args), kept, s, phi, g, given)


def normalize_rows(x_BTC: Tensor, args: JoinArgs) -> Tensor | None:
    """x / rms(x) · weight, as `aptlab.nn.norm.RMSNorm`."""
    if args.weight is None:
        return None
    kind = torch.promote_types(x_BTC.dtype, torch.float32)
    return F.rms_norm(x_BTC.to(kind), args.weight.shape, args.weight.to(kind), args.eps).to(x_BTC.dtype)


def join_norm_kernel(u_BTC: Tensor, delta_BTC: Tensor, args: JoinArgs) -> JoinOutput:
    """The kernel, as an op of its own in a compiled graph and as a plain function of autograd elsewhere."""
    gate, step, phi = args.gate, args.step, args.phi
    if gate is None:
        flags, numbers = (False, False, False), [0.0] * 8 + [args.eps]
        step = phi = None
    else:
        flags = (True, gate.zero, gate.keep)
        numbers = [gate.alpha, gate.tau, gate.beta, gate.kappa, gate.baseline, gate.w1, gate.w2, gate.guard, args.eps]
        step = step if gate.w2 else None
    run = _joined if torch.compiler.is_compiling() else _Joined.apply  # the op costs a small model 0.1 ms a call
    tensors = (None if x is None else x.detach() for x in (step, phi, args.lift))
    found = run(u_BTC, delta_BTC, *tensors, args.weight, *flags, [float(x) for x in numbers])
    stream, normed, kept, stats, _ = found
    normed = None if args.weight is None else normed
    if gate is None:
        return JoinOutput(stream, normed)
    rows = (x.view(*u_BTC.shape[:-1], 1) for x in stats.detach().unbind(0))
    return JoinOutput(stream, normed, kept.detach() if gate.keep else None, *rows)


@torch.library.custom_op("aptlab::join_norm", mutates_args=())
def _joined(
    u: Tensor,
    delta: Tensor,
    step: Tensor | None,
    phi: Tensor | None,
    lift: Tensor | None,
    weight: Tensor | None,
    gated: bool,
    zero: bool,
    keep: bool,
    numbers: Sequence[float],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    found = run_forward(u, delta, step, phi, lift, weight, (gated, zero, keep), numbers)
    return tuple(u.new_empty(0) if x is None else x for x in found)  # type: ignore[return-value]


@_joined.register_fake
def _(u, delta, step, phi, lift, weight, gated, zero, keep, numbers):
    rows, none = math.prod(u.shape[:-1]), u.new_empty(0)
    return (
        u.new_empty(u.shape),
        none if weight is None else u.new_empty(u.shape),
        u.new_empty(u.shape, dtype=delta.dtype) if keep else u.new_empty(0),
        u.new_empty((4, rows), dtype=torch.float32) if gated else u.new_empty(0),
        u.new_empty(0) if weight is None else u.new_empty(rows, dtype=torch.float32),
    )


@torch.library.custom_op("aptlab::join_norm_backward", mutates_args=())
def _joined_back(
    dstream: Tensor | None,
    dnormed: Tensor | None,
    stream: Tensor | None,
    rstd: Tensor | None,
    stats: Tensor | None,
    weight: Tensor | None,
    gated: bool,
    zero: bool,
    delta_dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:
    given = dnormed if dstream is None else dstream
    assert given is not None
    found = run_backward(dstream, dnormed, (stream, rstd, stats, weight), (gated, zero), delta_dtype)
    return tuple(given.new_empty(0) if x is None else x for x in found)  # type: ignore[return-value]


@_joined_back.register_fake
def _(dstream, dnormed, stream, rstd, stats, weight, gated, zero, delta_dtype):
    like = dnormed if dstream is None else dstream
    scaled = gated or delta_dtype != like.dtype
    return (
        like.new_empty(0 if dnormed is None else like.shape),
        like.new_empty(like.shape, dtype=delta_dtype) if scaled else like.new_empty(0),
        like.new_empty(0) if dnormed is None else torch.empty_like(weight),
    )


class _Joined(torch.autograd.Function):
    """The op without the dispatcher, for eager code."""

    @staticmethod
    def forward(ctx, u, delta, step, phi, lift, weight, gated, zero, keep, numbers):
        found = run_forward(u, delta, step, phi, lift, weight, (gated, zero, keep), numbers)
        _keep(ctx, (u, delta, step, phi, lift, weight, gated, zero, keep, numbers), found)
        ctx.mark_non_differentiable(*(x for x in found[2:] if x is not None))
        ctx.set_materialize_grads(False)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads):
        return _back(ctx, *grads, run=run_backward_raw)


def _keep(ctx, inputs, output) -> None:
    _, delta, _, _, _, weight, gated, zero, _, _ = inputs
    stream, _, _, stats, rstd = output
    normed = weight is not None
    ctx.save_for_backward(stream if normed else None, rstd if normed else None, stats if gated else None, weight)
    ctx.how = gated, zero, delta.dtype


def _back(ctx, dstream, dnormed, *rest, run=None):
    """Gradients of the ten inputs of the op."""
    nothing = (None,) * 8
    gated, zero, delta_dtype = ctx.how
    stream, rstd, stats, weight = ctx.saved_tensors
    dnormed = None if weight is None else dnormed
    if dnormed is None and (dstream is None or not gated):
        return dstream, None if dstream is None else dstream.to(delta_dtype), *nothing
    found = (run or _joined_back)(dstream, dnormed, stream, rstd, stats, weight, gated, zero, delta_dtype)
    du = dstream if dnormed is None else found[0]
    scaled = gated or delta_dtype != du.dtype
    return du, found[1] if scaled else du, None, None, None, None if dnormed is None else found[2], *nothing[4:]


_joined.register_autograd(_back, setup_context=_keep)


def run_forward(u, delta, step, phi, lift, weight, flags, numbers):
    """Stream, normed, step, stats, rstd; None for what was not asked."""
    from aptlab.ops.triton import smooth_norm as kernel

    gated, zero, keep = flags
    weight = None if weight is None else weight.detach().contiguous()
    how = kernel.JoinSpec(gated, zero, *numbers)
    return tuple(kernel.join_forward(u, delta, (step, phi), lift, weight, how, keep_step=keep))


def run_backward(dstream, dnormed, saved, flags, delta_dtype):
    """Gradients of u, delta, weight; None as in `kernel.join_backward`."""
    from aptlab.ops.triton import smooth_norm as kernel

    how = kernel.JoinSpec(*flags, *(0.0,) * 9)
    return kernel.join_backward(dstream, dnormed, kernel.SavedJoin(*saved), how, delta_dtype)


def run_backward_raw(dstream, dnormed, stream, rstd, stats, weight, gated, zero, delta_dtype):
    """`run_backward` called as the op is."""
    return run_backward(dstream, dnormed, (stream, rstd, stats, weight), (gated, zero), delta_dtype)
