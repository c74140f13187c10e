"""The rotation kernel against float64, case by case: in Triton's interpreter (test_rotary_heads.py), or on CUDA."""

from __future__ import annotations

import itertools
import sys

import torch

from aptlab.ops import rotary_heads as op
from aptlab.ops.rotary_heads import STEP, HeadNorm, RotationArgs
from aptlab.ops.triton import rotary as kernel
from aptlab.ops.triton.tiles import Tile

FACTOR = 1.1  # no float32 number
TILES = [
    Tile(1, 1),
    Tile(4, 2, programs=1),
    Tile(16, 8),
    Tile(2, 4),
]
LAYOUTS, WHERES = ("half", "interleaved"), (None, "before", "after")
SIZES = [(2, 5, 3, 1, 16, 8), (1, 3, 2, 2, 24, 12), (2, 4, 1, 1, 32, 6), (1, 2, 5, 2, 64, 32)]  # B T Q K D P
DIGITS = {torch.float32: 24, torch.bfloat16: 8, torch.float16: 11}  # bits of the significand


def units(got, expected, dtype, *, floor=1e-2, size=None):
    """Largest error in units in the last place of `dtype` at `size`, else at each value's own.

    A value below `floor` times the mean counts as that large: it is a difference of products, whose own float32
    errors do not shrink with it.
    """
    size = expected.abs() if size is None else size
    size = torch.maximum(size, floor * expected.abs().mean())
    return ((got.double() - expected).abs() / torch.exp2(size.log2().floor() + 1 - DIGITS[dtype])).max().item()


def lengths(x, pairs, layout):
    """sqrt(a² + b²) in the place of both members of every pair, and |x| in that of the others."""
    out = x.abs().clone()
    first, second = members(pairs, layout)
    out[..., first] = out[..., second] = torch.hypot(x[..., first], x[..., second])
    return out


def members(pairs, layout):
    """Slices of the dims that are first and second in their pairs."""
    if layout == "half":
        return slice(0, pairs), slice(pairs, 2 * pairs)
    return slice(0, 2 * pairs, 2), slice(1, 2 * pairs, 2)


def theta_of(pairs: int) -> torch.Tensor:
    return torch.tensor([10_000.0 ** (-i / pairs) for i in range(pairs)], dtype=torch.float64)


def tables_of(pairs: int) -> torch.Tensor:
    steps = torch.arange(STEP, dtype=torch.float64).unsqueeze(1)
    hi, lo = steps * STEP * theta_of(pairs), steps * theta_of(pairs)
    return torch.stack((hi.cos(), hi.sin(), lo.cos(), lo.sin())).float()


def exact(x, args, theta_P, layout):
    """The formula in float64, from positions and frequencies, not from the tables."""
    x, q = x.double(), args.queries
    weight = None if args.norm is None or args.norm.weight is None else args.norm.weight.double()

    def norm(y):
        y = y / (y.pow(2).mean(-1, keepdim=True) + args.norm.eps).sqrt()
        return y if weight is None else torch.cat((y[:, :q] * weight[0], y[:, q:] * weight[1]), dim=1)

    if args.norm is not None and args.norm.where == "before":
        x = norm(x)
    angle = (args.positions.double().unsqueeze(-1) * theta_P).unsqueeze(1)
    cos, sin, pairs = angle.cos() * args.factor, angle.sin() * args.factor, len(theta_P)
    out = x.clone()
    first, second = members(pairs, layout)
    out[..., first] = x[..., first] * cos - x[..., second] * sin
    out[..., second] = x[..., second] * cos + x[..., first] * sin
    if args.norm is not None and args.norm.where == "after":
        out = norm(out)
    if args.scale is not None:
        out = torch.cat((out[:, :q] * args.scale.double()[:, None, :, None], out[:, q:]), dim=1)
    return out


def assert_case(size, layout, where, dtype, device, *, weighted=True, scaled=True, theta=True, tile=None):
    """Forward, backward and reference of one case; theta: whether the frequencies are given beside the tables."""
    batch, tokens, q, k, head_dim, pairs = size
    generator = torch.Generator().manual_seed(0)
    # A view into a fused projection [B, T, N, D] with values behind the keys, as attention has it.
    whole = torch.randn(batch, tokens, q + 2 * k, head_dim, generator=generator).to(device, dtype)
    x = whole.transpose(1, 2)[:, : q + k]
    positions = torch.randint(0, 10_000_000, (batch if batch > 1 else 1, tokens), generator=generator).to(device)
    weight = torch.rand(2, head_dim, generator=generator).add(0.5).to(device) if where and weighted else None
    norm = None if where is None else HeadNorm(weight, 1e-5, where)
    scale = torch.rand(1, tokens, generator=generator).add(0.5).to(device) if scaled else None
    exactly = theta_of(pairs).to(device)
    args = RotationArgs(
        positions, tables_of(pairs).to(device), q, layout, norm, FACTOR, scale, exactly if theta else None
    )
    given = (positions, args.tables, args.theta, weight, scale)
    how = kernel.KernelSpec(q, layout == "interleaved", kernel.NORMS[where], 1e-5, FACTOR)
    got = kernel.rotate_forward(x, *given, how, tile=tile)
    near = x.detach().double().requires_grad_()
    weights = None if weight is None else weight.double().requires_grad_()
    wide = args._replace(norm=None if norm is None else norm._replace(weight=weights))
    expected = exact(near, wide, exactly, layout)
    assert got.dtype == dtype
    assert got.shape == x.shape
    spent, heads = whole.clone(), q + k
    kernel.rotate_forward(over := spent.transpose(1, 2)[:, :heads], *given, how, out=over, tile=tile)
    assert torch.equal(over, got), f"in place {size} {layout} {where} {dtype}"
    assert torch.equal(spent[:, :, heads:], whole[:, :, heads:]), "values behind the keys are no heads to rotate"
    dy = torch.randn(got.shape, generator=generator).to(device, dtype)
    dx, dw = kernel.rotate_backward(dy, x, *given, how, tile=tile)
    expected.backward(dy.double())
    assert near.grad is not None
    reference = op.rotate_heads_reference(x, args)
    for name, ours, right in (
        ("forward", got, expected),
        ("reference", reference, expected),
        ("backward", dx, near.grad),
    ):
        if dtype == torch.float32 and not theta:  # the error of tables goes with a pair's length
            error = units(ours, right, dtype, size=lengths(right, pairs, layout))
            limit = 8 if where and name == "backward" else 2  # the gradient of a norm is a small difference
        else:
            error, limit = units(ours, right, dtype, floor=1e-6 if dtype == torch.float32 else 1e-2), 1
        assert error <= limit, f"{name} {size} {layout} {where} {dtype} theta={theta}: {error:.2f} units"
    if weights is not None:
        assert dw is not None
        assert weights.grad is not None
        assert (dw.double() - weights.grad).abs().max() <= 1e-4 * weights.grad.abs().max()


def list_cases(device: str):
    """(case, whether it is one of the first: one size and layout in float32 by its frequencies).

    The interpreter takes its time, so that on a CPU every other case is one of bfloat16, and the rest go by tables too.
    """
    for number, (size, layout, where) in enumerate(itertools.product(SIZES, LAYOUTS, WHERES)):
        is_first, odd = size is SIZES[1] and layout == LAYOUTS[0], (number + number // 6) % 2
        yield (size, layout, where, torch.float32, True), is_first
        for dtype in (torch.bfloat16,) if device == "cpu" else tuple(DIGITS)[1:]:
            if device != "cpu" or odd:
                yield (size, layout, where, dtype, True), False
        if device != "cpu" or not odd:
            yield (size, layout, where, torch.float32, False), False


def assert_all_cases(device: str, sizes: str = "all") -> None:
    """sizes: the `first` cases, the `others`, or all."""
    for (size, layout, where, dtype, theta), is_first in list_cases(device):
        if sizes == "all" or is_first == (sizes == "first"):
            assert_case(size, layout, where, dtype, device, theta=theta, scaled=size[0] == 2 or not theta)
    if sizes == "first":
        return
    assert_case(SIZES[0], "half", "after", torch.float32, device, weighted=False)
    for tile in TILES:
        assert_case(SIZES[3], "half", "before", torch.bfloat16, device, tile=tile)


if __name__ == "__main__":
    assert_all_cases(*sys.argv[1:])
    print("all cases passed")
