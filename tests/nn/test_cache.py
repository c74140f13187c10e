"""The key/value cache."""

import pytest
import torch

from aptlab.errors import AptlabError
from aptlab.nn.attention.cache import KVCache

SITES = ("0/attention", "1/attention")
SIZE = {"max_keys": dict.fromkeys(SITES), "batch": 3, "kv_heads": 2, "head_dim": 4, "length": 5}


def new(tokens, seed=0):
    return torch.randn(2, 3, 2, tokens, 4, generator=torch.Generator().manual_seed(seed)).unbind()


def test_layers_get_back_what_they_stored_in_order():
    cache, (k1, v1), (k2, v2) = KVCache.empty(**SIZE), new(3, 1), new(2, 2)
    for layer in range(2):
        k, v = cache.append(SITES[layer], k1 + layer, v1)
        assert torch.equal(k, k1 + layer)
    cache.advance(3)
    for layer in range(2):
        k, v = cache.append(SITES[layer], k2, v2)
        assert torch.equal(k, torch.cat((k1 + layer, k2), dim=2))
        assert torch.equal(v, torch.cat((v1, v2), dim=2))
    cache.advance(2)
    assert cache.length == cache.capacity == 5


def test_length_counts_only_when_every_layer_has_stored():
    cache, (k, v) = KVCache.empty(**SIZE), new(2)
    cache.append(SITES[0], k, v)
    assert cache.length == 0


def test_segments_are_one_where_none_are_given():
    cache = KVCache.empty(**SIZE)
    cache.mark(None, None, 2)
    assert not cache.padded
    cache.advance(2)
    pads = torch.tensor([[0], [1], [2]])
    cache.mark(pads, pads + 5, 1)
    assert torch.equal(cache.segments_BS[:, :3], torch.cat((torch.ones(3, 2, dtype=torch.long), pads), dim=1))
    assert torch.equal(cache.positions_BS[:, :3], torch.tensor([[0, 1, 5], [0, 1, 6], [0, 1, 7]]))
    assert cache.padded
    assert cache.has_positions


def test_it_takes_the_dtype_asked_for():
    cache = KVCache.empty(**SIZE, dtype=torch.bfloat16)
    k, v = cache.append(SITES[0], *new(1))
    assert k.dtype == v.dtype == torch.bfloat16
    assert cache.bytes() == 2 * 2 * 2 * 3 * 2 * 5 * 4


def test_too_many_tokens_are_refused():
    cache = KVCache.empty(**SIZE)
    cache.append(SITES[0], *new(3))
    cache.advance(3)
    with pytest.raises(AptlabError, match="the cache holds 5 tokens and 6 are needed; make it longer"):
        cache.append(SITES[0], *new(3))


@pytest.mark.parametrize("pieces", [[1] * 40, [3, 1, 1, 7, 2, 1, 1, 1, 20, 1, 1, 1], [40], [9, 31], [8, 8, 8, 8, 8]])
def test_a_rolling_layer_returns_the_last_keys_whatever_the_pieces(pieces):
    reach = 5
    cache = KVCache.empty(max_keys={"0/attention": reach}, batch=1, kv_heads=1, head_dim=1, length=40)
    every = torch.arange(40.0).view(1, 1, 40, 1)
    begin = 0
    for tokens in pieces:
        new = every[:, :, begin : begin + tokens]
        k, v = cache.append(SITES[0], new, -new)
        cache.advance(tokens)
        expected = every[:, :, max(0, begin - reach + 1) : begin + tokens]
        assert torch.equal(k, expected)
        assert torch.equal(v, -expected)
        begin += tokens
    assert cache.bytes() == 2 * 2 * reach * 4
