"""What a model is said to cost, against loops over pairs and against torch's own count of products."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from aptlab.config import build, compose
from aptlab.models.cost import count_part_parameters, estimate_cost
from aptlab.nn.attention import FullAttention, LinearAttention
from aptlab.nn.ffn import SwiGLU
from aptlab.nn.positions.bias import CoPE
from aptlab.nn.positions.rope import IRope, PerLayer, Standard
from aptlab.nn.window import SlidingWindow, mean_visible_keys
from aptlab.testing import make_random_tokens, make_tiny_decoder
from aptlab.testing.tiny import SHAPE

CONF = Path(__file__).parents[2] / "conf"
OPTIONS = [f"{group}={path.stem}" for group in ("rope", "bias", "embed") for path in (CONF / group).glob("*.yaml")]
GROUPS = ("attention", "smooth", "ffn", "block")
OTHERS = [f"{group}={path.stem}" for group in GROUPS for path in (CONF / group).glob("*.yaml")]
MORE = ["attention.qk_norm=true", "attention.bias=true", "attention.sinks=true", "model.tied=false"]
MORE += ["model.head.bias=true"]


@pytest.mark.parametrize("option", sorted(OPTIONS + OTHERS) + MORE)
def test_the_parts_are_all_parameters(option):
    config = compose("train", ["size=debug", "context=32", "vocab=61", option])
    net = build(config.resolved()["model"])
    assert sum(size for _, size in count_part_parameters(net)) == sum(weight.numel() for weight in net.parameters())
    assert "other" not in dict(count_part_parameters(net))


def test_parts_beside_the_blocks_are_named():
    words = ["size=debug", "context=32", "vocab=61", "rope=learnable", "bias=learned", "embed=learned"]
    net = build(compose("train", words).resolved()["model"])
    found = dict(count_part_parameters(net))
    assert found["rope"] == sum(weight.numel() for weight in net.rotaries.parameters()) > 0
    assert found["bias"] == sum(weight.numel() for weight in net.biases.parameters()) > 0
    assert found["positions"] == 32 * net.shape.dim
    assert found["head (tied)"] == 0


def test_a_part_that_nobody_named_is_other():
    net = make_tiny_decoder()
    net.extra = nn.Linear(3, 5)
    assert count_part_parameters(net)[-1] == ("other", 20)


@pytest.mark.parametrize("tokens", [1, 2, 7, 24, 25])
@pytest.mark.parametrize("window", [None, 1, 5, 30])
@pytest.mark.parametrize("chunk", [None, 1, 4, 7, 30])
def test_seen_keys_are_those_of_a_loop(tokens, window, chunk):
    def sees(m: int, n: int) -> bool:
        return n <= m and m - n < (window or tokens) and m // (chunk or tokens) == n // (chunk or tokens)

    pairs = sum(sees(m, n) for m in range(tokens) for n in range(tokens))
    assert mean_visible_keys(tokens, window=window, chunk=chunk) == pairs / tokens


def attention_of(tokens: int, **parts: Any) -> float:
    """FLOPs per token and head dim of all layers, without matrices."""
    price = estimate_cost(make_tiny_decoder(**parts), tokens)
    return (price.forward - 2 * price.matmul) / (SHAPE.heads * SHAPE.head_sizes()[2])


def test_windows_and_blocks_count_what_they_see():
    assert attention_of(24) == 3 * 4 * 12.5
    sliding = partial(FullAttention, window=SlidingWindow(size=5, full_every=3))
    assert attention_of(24, attention=sliding) == pytest.approx(
        4 * (2 * mean_visible_keys(24, window=5) + 12.5), abs=0.02
    )
    assert attention_of(24, rope=IRope(interval=3, chunk=7)) == pytest.approx(
        4 * (2 * mean_visible_keys(24, chunk=7) + 12.5), abs=0.02
    )
    rules = PerLayer(rules=(Standard(base=100.0), Standard()))
    assert attention_of(24, rope=rules) == attention_of(24)


@pytest.mark.parametrize("form", ["numerator", "one_plus_cos"])
def test_linear_attention_costs_the_same_at_any_length(form):
    parts = {"attention": partial(LinearAttention, form=form, chunk=8)}
    assert attention_of(32, **parts) == attention_of(4096, **parts)
    assert attention_of(8192, **parts) < attention_of(8192) / 20


@pytest.mark.parametrize("form", ["numerator", "one_plus_cos"])
def test_linear_attention_takes_the_products_that_torch_counts(form):
    """But for pairs that the mask drops: torch multiplies all of a chunk, and of those half are counted."""
    tokens, chunk, heads = 32, 8, SHAPE.heads
    net = make_tiny_decoder(attention=partial(LinearAttention, form=form, chunk=chunk))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(make_random_tokens(1, tokens))
    dims = SHAPE.head_sizes()[2]
    sizes = [(dims, dims), (dims, 1)] if form == "numerator" else [(3 * dims, dims + 1)]
    dropped = SHAPE.depth * 2 * heads * sum(features + values for features, values in sizes) * (chunk - 1) / 2
    assert counter.get_total_flops() / tokens == estimate_cost(net, tokens).forward + dropped


def test_full_attention_takes_the_products_that_torch_counts():
    tokens = 24
    net = make_tiny_decoder()
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        net(make_random_tokens(1, tokens))
    dropped = 3 * 4 * SHAPE.heads * SHAPE.head_sizes()[2] * (tokens - 1) / 2
    assert counter.get_total_flops() / tokens == estimate_cost(net, tokens).forward + dropped


def test_cope_takes_the_products_that_torch_counts():
    tokens = 24
    net = make_tiny_decoder(bias=partial(CoPE, max_pos=5))
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        net(make_random_tokens(1, tokens))
    dropped = 3 * 6 * SHAPE.heads * SHAPE.head_sizes()[2] * (tokens - 1) / 2
    assert counter.get_total_flops() / tokens == estimate_cost(net, tokens).forward + dropped
    assert estimate_cost(net, tokens).forward > estimate_cost(make_tiny_decoder(), tokens).forward


def test_matrices_that_a_token_does_not_pass_cost_nothing():
    class Halved(SwiGLU):
        """Half of the work is for other tokens."""

        def skip_flops(self):
            return float(self.down.weight.numel() + self.gate_up.weight.numel())

    whole, halved = estimate_cost(make_tiny_decoder(), 24), estimate_cost(make_tiny_decoder(ffn=Halved), 24)
    assert halved.parameters == whole.parameters
    assert whole.forward - halved.forward == 3 * 3 * 32 * 48
