"""The rotation kernel against float64, case by case: in Triton's interpreter (test_rotary_heads.py), or on CUDA."""

from __future__ import annotations

import itertools
import sys

import torch

from aptlab.ops import rotary_heads as op
from aptlab.ops.rotary_heads import STEP, Norm, Turn
from aptlab.ops.triton import rotary as kernel

LAYOUTS, WHERES = ("half", "interleaved"), (None, "before", "after")
SIZES = [(2, 5, 3, 1, 16, 8), (1, 3, 2, 2, 24, 12), (2, 4, 1, 1, 32, 6), (1, 2, 5, 2, 64, 32)]  # B T Q K D P
DIGITS = {torch.float32: 24, torch.bfloat16: 8, torch.float16: 11}  # bits of the significand


def units(got, wanted, dtype, *, floor):
    """Largest error in units in the last place of `dtype`.

    A value below `floor` times the mean counts as that large: it is a difference of products, whose own float32
    errors do not shrink with it.
    """
    size = torch.maximum(wanted.abs(), floor * wanted.abs().mean())
    return ((got.double() - wanted).abs() / torch.exp2(size.log2().floor() + 1 - DIGITS[dtype])).max().item()


def tables_of(pairs: int) -> torch.Tensor:
    theta = torch.tensor([10_000.0 ** (-i / pairs) for i in range(pairs)], dtype=torch.float64)
    steps = torch.arange(STEP, dtype=torch.float64).unsqueeze(1)
    hi, lo = steps * STEP * theta, steps * theta
    return torch.stack((hi.cos(), hi.sin(), lo.cos(), lo.sin())).float()


def exact(x, turn, theta_P, layout):
    """The formula in float64, from positions and frequencies, not from the tables."""
    x, q = x.double(), turn.queries
    weight = None if turn.norm is None or turn.norm.weight is None else turn.norm.weight.double()

    def norm(y):
        y = y / (y.pow(2).mean(-1, keepdim=True) + turn.norm.eps).sqrt()
        return y if weight is None else torch.cat((y[:, :q] * weight[0], y[:, q:] * weight[1]), dim=1)

    if turn.norm is not None and turn.norm.where == "before":
        x = norm(x)
    angle = (turn.positions.double().unsqueeze(-1) * theta_P).unsqueeze(1)
    cos, sin, pairs = angle.cos() * turn.factor, angle.sin() * turn.factor, len(theta_P)
    out = x.clone()
    first = slice(0, pairs) if layout == "half" else slice(0, 2 * pairs, 2)
    second = slice(pairs, 2 * pairs) if layout == "half" else slice(1, 2 * pairs, 2)
    out[..., first] = x[..., first] * cos - x[..., second] * sin
    out[..., second] = x[..., second] * cos + x[..., first] * sin
    if turn.norm is not None and turn.norm.where == "after":
        out = norm(out)
    if turn.scale is not None:
        out = torch.cat((out[:, :q] * turn.scale.double()[:, None, :, None], out[:, q:]), dim=1)
    return out


def check(size, layout, where, dtype, device, *, weighted=True, scaled=True, tile=None):
    batch, tokens, q, k, head_dim, pairs = size
    generator = torch.Generator().manual_seed(0)
    # A view into a fused projection [B, T, N, D] with values behind the keys, as attention has it.
    whole = torch.randn(batch, tokens, q + 2 * k, head_dim, generator=generator).to(device, dtype)
    x = whole.transpose(1, 2)[:, : q + k]
    positions = torch.randint(0, 10_000_000, (batch if batch > 1 else 1, tokens), generator=generator).to(device)
    weight = torch.rand(2, head_dim, generator=generator).add(0.5).to(device) if where and weighted else None
    norm = None if where is None else Norm(weight, 1e-5, where)
    scale = torch.rand(1, tokens, generator=generator).add(0.5).to(device) if scaled else None
    turn = Turn(positions, tables_of(pairs).to(device), q, layout, norm, 1.25, scale)
    arguments = {
        "queries": q, "interleaved": layout == "interleaved", "norm": kernel.NORMS[where],
        "eps": 1e-5, "factor": 1.25, "tile": tile,
    }  # fmt: skip
    got = kernel.forward(x, positions, turn.tables, weight, scale, **arguments)
    theta = torch.tensor([10_000.0 ** (-i / pairs) for i in range(pairs)], dtype=torch.float64, device=device)
    near = x.detach().double().requires_grad_()
    weights = None if weight is None else weight.double().requires_grad_()
    wide = turn._replace(norm=None if norm is None else norm._replace(weight=weights))
    wanted = exact(near, wide, theta, layout)
    assert got.dtype == dtype
    assert got.shape == x.shape
    floor, limit = (4.0, 6) if dtype == torch.float32 else (1e-2, 1)  # float32 tables have errors of their own
    error = units(got, wanted, dtype, floor=floor)
    assert error <= limit, f"{size} {layout} {where} {dtype}: {error:.2f} units"
    error = units(op.rotate_heads_reference(x, turn), wanted, dtype, floor=floor)
    assert error <= limit, f"reference {size} {layout} {where} {dtype}: {error:.2f} units"
    dy = torch.randn(got.shape, generator=generator).to(device, dtype)
    dx, dw = kernel.backward(dy, x, positions, turn.tables, weight, scale, **arguments)
    wanted.backward(dy.double())
    assert near.grad is not None
    error = units(dx, near.grad, dtype, floor=floor)
    assert error <= 2 * limit, f"backward {size} {layout} {where} {dtype}: {error:.2f} units"
    if weights is not None:
        assert dw is not None
        assert weights.grad is not None
        assert (dw.double() - weights.grad).abs().max() <= 1e-4 * weights.grad.abs().max()


def main(device: str) -> None:
    for size, layout, where in itertools.product(SIZES, LAYOUTS, WHERES):
        for dtype in (torch.float32, torch.bfloat16) if device == "cpu" else DIGITS:
            check(size, layout, where, dtype, device, scaled=size[0] == 2)
    check(SIZES[0], "half", "after", torch.float32, device, weighted=False)
    for tile in ((1, 1), (4, 2), (16, 8)):
        check(SIZES[3], "half", "before", torch.float32, device, tile=tile)


if __name__ == "__main__":
    main(sys.argv[1])
    print("all cases passed")
