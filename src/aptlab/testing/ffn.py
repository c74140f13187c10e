"""Laws of feed-forward layers. Legend: B batch, T tokens, C dim."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from aptlab.nn.context import ForwardContext
from aptlab.nn.ffn import FeedForward
from aptlab.nn.shape import Shape
from aptlab.testing.contract import Contract, assert_close, assert_equal

SHAPE = Shape(dim=12, depth=2, heads=2, hidden=24)
STD = 0.3  # of weights, so that units differ


class FeedForwardContract(Contract):
    """Laws of one feed-forward: override `factory`, called as `factory(shape, layer=i)`.

    A layer with several `widths` also keeps those of nested layers: a width equals the layer that it becomes by
    `keep_width`, to the last bit, and what the width leaves out is what `skip_width_flops` and
    `skip_width_parameters` say.

    factory  a class or a functools.partial (a plain function needs `staticmethod`)
    """

    factory: Callable[..., FeedForward]

    def make_layer(self) -> FeedForward:
        """Layer 1 of SHAPE in eval mode, its weights seeded."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            layer = self.factory(SHAPE, layer=1).eval()
            layer.reset_parameters(STD, SHAPE.depth)
        return layer

    def test_shape_and_dtype_are_kept(self) -> None:
        for dtype in (torch.float32, torch.bfloat16, torch.float64):
            x = make_seeded_stream().to(dtype)
            out = run_layer(self.make_layer().to(dtype), x)
            assert out.shape == x.shape, f"out has sizes {list(out.shape)}, x has {list(x.shape)}"
            assert out.dtype == dtype, f"out is {out.dtype}, x is {dtype}"

    def test_a_token_sees_itself_alone(self) -> None:
        layer, x = self.make_layer(), make_seeded_stream()
        changed = x.clone()
        changed[1, 2] *= -3.0
        out, other = run_layer(layer, x), run_layer(layer, changed)
        same = torch.ones(x.shape[:2], dtype=torch.bool)
        same[1, 2] = False
        assert_close(other[same], out[same], "other tokens, after one has changed", atol=1e-6)
        assert not torch.equal(other[1, 2], out[1, 2]), "the layer ignores its input"

    def test_forward_changes_no_state_and_recomputation_gives_the_same_gradients(self) -> None:
        layer, x = self.make_layer(), make_seeded_stream()
        before = copy.deepcopy(layer.state_dict())
        plain = torch.autograd.grad(run_layer(layer, x).square().sum(), list(layer.parameters()))
        out: Any = checkpoint(run_layer, layer, x, use_reentrant=False)
        again = torch.autograd.grad(out.square().sum(), list(layer.parameters()))
        for got, expected in zip(again, plain, strict=True):
            assert_equal(got, expected, "a gradient with activation checkpointing")
        for name, value in layer.state_dict().items():
            assert_equal(value, before[name], f"{name} after forward")

    def test_the_full_width_is_the_layer(self) -> None:
        layer, x = self.make_layer(), make_seeded_stream()
        assert layer.widths[0] == 1, f"widths={layer.widths} begin with 1, the whole layer"
        assert tuple(sorted(set(layer.widths), reverse=True)) == layer.widths, f"widths={layer.widths}: largest first"
        assert_equal(run_layer(layer, x, 1.0), run_layer(layer, x), "width 1 == no width")

    def test_a_width_is_the_layer_that_it_becomes(self) -> None:
        x = make_seeded_stream()
        for width in self.make_layer().widths if len(self.make_layer().widths) > 1 else ():
            whole, alone = self.make_layer(), self.make_layer()
            alone.keep_width(width)
            assert alone.widths == (1.0,), f"widths={alone.widths} of what was cut to {width}"
            assert_equal(run_layer(alone, x), run_layer(whole, x, width), f"cut to {width} == width {width}")
            left_out = count_weights(whole) - count_weights(alone)
            assert whole.skip_width_parameters(width) == left_out, f"parameters that width {width} leaves out"
            flops = 2 * (count_matrices(whole) - count_matrices(alone))
            assert whole.skip_width_flops(width) == flops, f"FLOPs that width {width} leaves out"


def make_seeded_stream() -> Tensor:
    """Seeded tokens, float32 [2, 5, C]."""
    return torch.randn(2, 5, SHAPE.dim, generator=torch.Generator().manual_seed(1))


def run_layer(layer: FeedForward, x_BTC: Tensor, width: float | None = None) -> Tensor:
    """The layer's output at a width of it."""
    context = ForwardContext(x_BTC.shape[1])
    context.widths = None if width is None else (width,) * SHAPE.depth
    context.enter_site("1/ffn")
    return layer(x_BTC, context)


def count_weights(layer: nn.Module) -> int:
    """Numbers in all weights."""
    return sum(weight.numel() for weight in layer.parameters())


def count_matrices(layer: nn.Module) -> int:
    """Numbers in the weights of matrices."""
    return sum(part.weight.numel() for part in layer.modules() if isinstance(part, nn.Linear))
