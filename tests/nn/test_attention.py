"""Attention against a float64 reference, heads that share keys, and the temperature."""

import math

import numpy as np
import pytest
import torch

from aptlab.nn.attention import FullAttention
from aptlab.nn.context import ForwardContext
from aptlab.nn.positions.layer import LayerPositions
from aptlab.nn.positions.rope import Standard, YaRN
from aptlab.nn.positions.rotary import RotaryEmbedding
from aptlab.nn.shape import Shape
from tests.helpers import bound
from tests.reference.attention import attend
from tests.reference.norm import rms_norm
from tests.reference.rope import rotate

SHAPE = Shape(dim=24, depth=1, heads=4, kv_heads=2, head_dim=8, hidden=8)


def made(rule=None, shape=SHAPE, **options):
    torch.manual_seed(0)
    rotary = None if rule is None else RotaryEmbedding(rule, head_dim=shape.head_dim)
    layer = bound(FullAttention(shape, layer=0, **options), LayerPositions(rotary=rotary)).double().eval()
    for name, weight in layer.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(weight, 0.5, 1.5)
    return layer, torch.randn(2, 7, shape.dim, dtype=torch.float64)


def step(tokens=7, **given):
    return ForwardContext(tokens, **given)


def expected(layer, x, rule, shape=SHAPE, qk_norm=False, eps=1e-5):
    weight, out = layer.qkv.weight.detach().numpy(), layer.out.weight.detach().numpy()
    joined = x @ weight.T
    ends = [shape.heads * shape.head_dim, (shape.heads + shape.kv_heads) * shape.head_dim]
    q, k, v = (part.reshape(len(x), -1, shape.head_dim) for part in np.split(joined, ends, axis=1))
    if qk_norm:
        q = np.stack([[rms_norm(head, layer.q_norm.weight.tolist(), eps) for head in row] for row in q])
        k = np.stack([[rms_norm(head, layer.k_norm.weight.tolist(), eps) for head in row] for row in k])
    temperature = 1.0
    if rule is not None:
        theta, temperature = rule.inv_freq(shape.head_dim), rule.temperature
        q = np.stack([[rotate(head, m, theta) for head in row] for m, row in enumerate(q)])
        k = np.stack([[rotate(head, m, theta) for head in row] for m, row in enumerate(k)])
    mixed = attend(q, k, v, temperature / math.sqrt(shape.head_dim), lambda m, n: n <= m)
    return mixed.reshape(len(x), -1) @ out.T


@pytest.mark.parametrize("qk_norm", [False, True])
@pytest.mark.parametrize("rule", [None, Standard(), YaRN(factor=8.0, original_len=4)], ids=repr)
def test_attention_is_the_papers(rule, qk_norm):
    layer, x = made(rule, qk_norm=qk_norm)
    got = layer(x, step()).detach().numpy()
    outputs = np.stack([expected(layer, row, rule, qk_norm=qk_norm) for row in x.numpy()])
    assert np.abs(got - outputs).max() < (1e-12 if rule is None else 1e-6)  # the tables are float32


def test_qk_norm_eps_is_the_one_given():
    layer, x = made(None, qk_norm=True, qk_norm_eps=0.3)
    outputs = np.stack([expected(layer, row, None, qk_norm=True, eps=0.3) for row in x.numpy()])
    assert np.abs(layer(x, step()).detach().numpy() - outputs).max() < 1e-12


def test_shared_keys_equal_repeated_ones():
    layer, x = made(Standard())
    full, _ = made(Standard(), shape=Shape(dim=24, depth=1, heads=4, kv_heads=4, head_dim=8, hidden=8))
    q, k, v = layer.qkv.weight.detach().split([32, 16, 16])

    def twice(weight):
        return weight.unflatten(0, (2, 8)).repeat_interleave(2, dim=0).flatten(0, 1)

    with torch.no_grad():
        full.qkv.weight.copy_(torch.cat((q, twice(k), twice(v))))
        full.out.weight.copy_(layer.out.weight)
    assert torch.allclose(layer(x, step()), full(x, step()), atol=1e-12, rtol=0)


def test_temperature_multiplies_the_logits():
    sharp, _ = made(YaRN(factor=16.0, original_len=4))
    assert sharp.attention_spec().scale == pytest.approx((0.1 * math.log(16.0) + 1) ** 2 / math.sqrt(8), rel=1e-14)
    plain, _ = made(Standard())
    assert plain.attention_spec().scale == pytest.approx(1 / math.sqrt(8), rel=1e-14)


def test_a_mask_of_the_causal_triangle_equals_no_mask():
    layer, x = made(Standard())
    masked = step(segments=torch.ones(2, 7, dtype=torch.long))
    assert torch.equal(masked.mask(), torch.ones(7, 7, dtype=torch.bool).tril().expand(2, 1, 7, 7))
    assert step().mask() is None
    assert torch.allclose(layer(x, masked), layer(x, step()), atol=1e-12, rtol=0)


def test_dropout_is_off_in_evaluation():
    layer, x = made(None, dropout=0.5)
    assert torch.equal(layer(x, step()), layer(x, step()))
    assert not torch.equal(layer.train()(x, step()), layer(x, step()))


def test_autocast_with_a_float32_cache_works():
    from aptlab.nn.attention.cache import KVCache

    layer, x = made(Standard())
    layer, x = layer.float(), x.float()
    cache = KVCache.empty(max_keys={"": None}, batch=2, kv_heads=2, head_dim=8, length=7)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = layer(x, step(cache=cache))
    assert (out.float() - layer(x, step())).abs().max() < 0.05
