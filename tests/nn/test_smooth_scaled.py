"""The residual with a fixed factor: its equation and its laws."""

from functools import partial

import pytest
import torch

from aptlab.config import check, compose
from aptlab.errors import ConfigError
from aptlab.nn.smooth import Plain, ScaledResidual
from aptlab.testing import SmoothContract, make_random_tokens, make_tiny_decoder
from aptlab.testing.smooth import join_once


class TestScaledResidual(SmoothContract):
    factory = ScaledResidual
    plain_limit = partial(ScaledResidual, factor=1.0)


def test_it_adds_the_scaled_branch():
    layer = ScaledResidual(4, layer=0, site="ffn", factor=0.25)
    u, delta = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    out, carry, seen = join_once(layer, u, delta, None, trace=True)
    assert torch.equal(out, u + 0.25 * delta)
    assert carry is None
    assert seen["peak"] == out.abs().max()


def test_output_matrices_can_hold_the_factor():
    tokens = make_random_tokens(2, 12)
    scaled = make_tiny_decoder(smooth=partial(ScaledResidual, factor=0.25))
    plain = make_tiny_decoder(smooth=Plain)
    with torch.no_grad():
        for block in plain.blocks:
            block.attention.out.weight.mul_(0.25)
            block.ffn.down.weight.mul_(0.25)
        assert (plain(tokens).logits - scaled(tokens).logits).abs().max() < 1e-5


def test_a_factor_must_be_positive():
    with pytest.raises(ConfigError, match=r"smooth\.factor: must be a finite number > 0, got 0"):
        check(compose("train", ["smooth=scaled", "smooth.factor=0"]))
