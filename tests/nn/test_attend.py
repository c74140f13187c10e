"""Chunks and windows folded into the batch equal their masks; sinks and decay equal their formulas."""

import math

import numpy as np
import pytest
import torch

from aptlab.errors import ConfigError
from aptlab.nn.attention import dispatch as module
from aptlab.nn.attention.cache import KVCache
from aptlab.nn.attention.dispatch import compute_attention
from aptlab.nn.attention.spec import AttentionSpec, Heads
from aptlab.nn.context import ForwardContext
from aptlab.nn.window import SlidingWindow


def heads_of(tokens, batch=2, heads=4, kv_heads=2, dim=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    sizes = (heads, kv_heads, kv_heads)
    return Heads(*(torch.randn(batch, h, tokens, dim, generator=generator, dtype=torch.float64) for h in sizes))


def by_mask(heads, seen_TS, scale):
    """softmax over the seen keys, key heads repeated."""
    k, v = (x.repeat_interleave(heads.q.shape[1] // x.shape[1], dim=1) for x in heads[1:])
    logits = (heads.q @ k.transpose(-1, -2) * scale).masked_fill(~seen_TS, -math.inf)
    return logits.softmax(-1) @ v


def places(tokens):
    return torch.arange(tokens).unsqueeze(1), torch.arange(tokens)


@pytest.mark.parametrize("tokens", [1, 3, 4, 8, 11, 17])
@pytest.mark.parametrize("size", [1, 4, 5, 30])
def test_folded_chunks_are_the_mask_of_equal_blocks(tokens, size):
    m, n = places(tokens)
    heads = heads_of(tokens)
    got = compute_attention(heads, ForwardContext(tokens), AttentionSpec(scale=0.7, chunk=size))
    expected = by_mask(heads, (n <= m) & (n // size == m // size), 0.7)
    assert torch.allclose(got, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("tokens", [1, 3, 4, 8, 11, 17])
@pytest.mark.parametrize("size", [1, 4, 5, 30])
def test_folded_windows_are_the_mask_of_a_band(tokens, size):
    m, n = places(tokens)
    heads = heads_of(tokens)
    got = compute_attention(heads, ForwardContext(tokens), AttentionSpec(scale=0.7, window=size))
    expected = by_mask(heads, (n <= m) & (n > m - size), 0.7)
    assert torch.allclose(got, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    "spec", [AttentionSpec(scale=1.0, chunk=16), AttentionSpec(scale=1.0, window=16)], ids=["chunk", "window"]
)
def test_nothing_of_the_size_of_all_pairs_is_made(spec, monkeypatch):
    """Linear cost: no operand of the fused kernel has a row of all tokens."""
    seen = []
    fused = module.attend_sdpa
    monkeypatch.setattr(
        module, "attend_sdpa", lambda heads, *a, **k: seen.append(heads.k.shape[2]) or fused(heads, *a, **k)
    )
    compute_attention(heads_of(512), ForwardContext(512), spec)
    assert seen
    assert max(seen) <= 32


@pytest.mark.parametrize(
    "spec", [AttentionSpec(scale=1.0, chunk=8), AttentionSpec(scale=1.0, window=8)], ids=["chunk", "window"]
)
@pytest.mark.parametrize("pieces", [[30], [8, 8, 8, 6], [5, 9, 1, 1, 14], [1] * 30, [16, 1, 1, 1, 11]], ids=str)
def test_pieces_through_a_cache_equal_the_whole(spec, pieces):
    heads, reach = heads_of(30), spec.chunk or spec.window
    whole = compute_attention(heads, ForwardContext(30), spec)
    cache = KVCache.empty(max_keys={"": reach}, batch=2, kv_heads=2, head_dim=8, length=30, dtype=torch.float64)
    begin, parts = 0, []
    for tokens in pieces:
        q, k, v = (x[:, :, begin : begin + tokens] for x in heads)
        step = ForwardContext(tokens, cache=cache)
        k, v = cache.append("", k, v)
        parts.append(compute_attention(Heads(q, k, v), step, spec))
        cache.advance(tokens)
        begin += tokens
    assert torch.allclose(torch.cat(parts, dim=2), whole, atol=1e-12, rtol=0)


def test_chunks_go_by_position_in_padded_and_packed_rows():
    """A document's chunks begin at its own first token."""
    heads = heads_of(12, batch=1)
    positions, segments = torch.tensor([[0, 0, *range(6), *range(4)]]), torch.tensor([[0] * 2 + [1] * 6 + [2] * 4])
    got = compute_attention(
        heads, ForwardContext(12, positions=positions, segments=segments), AttentionSpec(scale=1.0, chunk=4)
    )
    for part in (slice(2, 8), slice(8, 12)):
        own = Heads(*(x[:, :, part] for x in heads))
        alone = compute_attention(own, ForwardContext(own.q.shape[2]), AttentionSpec(scale=1.0, chunk=4))
        assert torch.allclose(got[:, :, part], alone, atol=1e-12, rtol=0)


def test_a_sink_takes_its_share_and_gives_nothing():
    heads, sinks = heads_of(6), torch.tensor([0.5, -1.0, 2.0, 0.0], dtype=torch.float64)
    got = compute_attention(heads, ForwardContext(6), AttentionSpec(scale=0.5, sinks=sinks))
    k, v = (x.repeat_interleave(2, dim=1) for x in heads[1:])
    logits = (heads.q @ k.transpose(-1, -2) * 0.5).masked_fill(~torch.ones(6, 6).tril().bool(), -math.inf)
    total = logits.exp().sum(-1, keepdim=True) + sinks.exp().view(1, 4, 1, 1)
    assert torch.allclose(got, logits.exp() / total @ v, atol=1e-12, rtol=0)


@pytest.mark.parametrize("layout", ["half", "interleaved"])
def test_decay_multiplies_each_pair_by_its_rate_to_the_distance(layout, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 4)
    heads, rates = heads_of(11), (0.9, 0.95, 0.99, 1.0)
    got = compute_attention(heads, ForwardContext(11), AttentionSpec(scale=0.5, decay=(rates, layout)))
    per_dim = np.concatenate((rates, rates)) if layout == "half" else np.repeat(rates, 2)
    q, k = heads.q.numpy(), heads.k.repeat_interleave(2, dim=1).numpy()
    logits = np.full((2, 4, 11, 11), -np.inf)
    for m in range(11):
        for n in range(m + 1):
            logits[:, :, m, n] = 0.5 * (q[:, :, m] * k[:, :, n] * per_dim ** (m - n)).sum(-1)
    weights = torch.from_numpy(logits).softmax(-1)
    assert torch.allclose(got, weights @ heads.v.repeat_interleave(2, dim=1), atol=1e-6, rtol=0)


def test_decay_is_finite_at_positions_where_others_overflow():
    """Published code multiplies by zeta^((position - centre) / 512): infinite from 36,260 tokens on."""
    rates = tuple(((2 * i + 3.2) / 11.2) ** (1 / 512) for i in range(4))
    heads = heads_of(5)
    far = torch.tensor([[0, 1, 50_000, 9_999_999, 10_000_000]])
    got = compute_attention(heads, ForwardContext(5, positions=far), AttentionSpec(scale=1.0, decay=(rates, "half")))
    assert got.isfinite().all()
    q, k, v = (x.double() for x in heads)
    k, v = k.repeat_interleave(2, dim=1), v.repeat_interleave(2, dim=1)
    per_dim = torch.tensor(rates + rates, dtype=torch.float64)
    distance = torch.tensor([10_000_000, 9_999_999, 9_950_000, 1, 0], dtype=torch.float64)
    logits = (q[:, :, 4:] * per_dim ** distance.view(1, 1, 5, 1) * k).sum(-1)
    assert torch.allclose(got[:, :, 4], (logits.softmax(-1).unsqueeze(-2) @ v).squeeze(-2), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("window", "every", "layers"), [(4, None, [4, 4, 4, 4]), (4, 2, [4, None, 4, None])])
def test_sliding_layers_alternate_as_asked(window, every, layers):
    assert [SlidingWindow(size=window, full_every=every).for_layer(layer) for layer in range(4)] == layers


def test_layers_of_a_list_see_everything():
    window = SlidingWindow(size=4, full_every=3, full_layers=[0, 1])
    assert [window.for_layer(layer) for layer in range(7)] == [None, None, None, 4, 4, None, 4]
    assert hash(window) == hash(SlidingWindow(size=4, full_every=3, full_layers=(0, 1)))
    with pytest.raises(ConfigError, match=r"^full_layers=\[-1\] must be numbers of layers, counted from 0"):
        SlidingWindow(full_layers=(-1,))


def test_a_reach_that_limits_nothing_is_refused():
    with pytest.raises(ConfigError, match=r"^full_every=1 limits no layer; use attention=full"):
        SlidingWindow(full_every=1)
