"""The feed-forwards keep the contract that ships to third parties, and one that breaks it is caught."""

from __future__ import annotations

from functools import partial

import pytest

from aptlab.nn.ffn import GELU, ClampedSwiGLU, GeGLU, MatFormer, SwiGLU
from aptlab.testing import FeedForwardContract

NESTED = MatFormer(granularities=(1, 0.75, 0.125))


class TestSwiGLU(FeedForwardContract):
    factory = SwiGLU


class TestClamped(FeedForwardContract):
    factory = partial(ClampedSwiGLU, nested=NESTED)


class TestMatFormer(FeedForwardContract):
    factory = partial(SwiGLU, nested=NESTED)


class TestMatFormerGELU(FeedForwardContract):
    factory = partial(GELU, bias=True, nested=NESTED)


class TestMatFormerGeGLU(FeedForwardContract):
    factory = partial(GeGLU, bias=True, nested=NESTED)


class Wide(SwiGLU):
    """A width that says nothing of what it leaves out."""

    def skip_width_flops(self, width: float) -> float:
        return 0.0


class Broken(SwiGLU):
    """The full width is not the layer."""

    def forward(self, x_BTC, context):
        return super().forward(x_BTC, context) * (2 if context.widths is not None else 1)


@pytest.mark.parametrize(
    ("factory", "law"),
    [
        (partial(Wide, nested=NESTED), "a_width_is_the_layer_that_it_becomes"),
        (partial(Broken, nested=NESTED), "the_full_width_is_the_layer"),
        (partial(Broken, nested=NESTED), "a_width_is_the_layer_that_it_becomes"),
    ],
)
def test_a_layer_that_breaks_a_law_is_caught(factory, law):
    class Mine(FeedForwardContract):
        pass

    Mine.factory = factory
    with pytest.raises(AssertionError):
        getattr(Mine(), f"test_{law}")()
