"""Position methods on a CUDA device: FlexAttention, pieces of a long prompt, folded chunks. Skipped without one."""

from __future__ import annotations

import pytest
import torch

from aptlab.nn.attention import dispatch as module
from aptlab.nn.attention.cache import KVCache
from aptlab.nn.attention.dispatch import compute_attention
from aptlab.nn.attention.spec import AttentionSpec, Heads
from aptlab.nn.context import ForwardContext
from aptlab.nn.positions.bias import ALiBi, Kerple, LearnedBias, T5Bias
from aptlab.nn.positions.rope import IRope, LongRoPE, Standard
from aptlab.testing import decode_in_chunks, make_random_tokens, make_tiny_decoder

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
TOKENS = 300
RULES = [Standard(), IRope(chunk=16), LongRoPE(original_len=16)]


def heads_of(tokens: int, dtype: torch.dtype = torch.float32, batch: int = 2) -> Heads:
    generator = torch.Generator().manual_seed(0)
    sizes = (4, 2, 2)
    return Heads(*(torch.randn(batch, h, tokens, 64, generator=generator).to("cuda", dtype) for h in sizes))


@pytest.mark.parametrize("kind", [ALiBi, T5Bias, Kerple, LearnedBias], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("packed", [False, True], ids=["one document", "two documents"])
@pytest.mark.parametrize("window", [None, 50])
def test_flex_attention_equals_the_dense_bias(kind, packed, window, monkeypatch):
    torch.manual_seed(0)
    scores = kind(heads=4, head_dim=64, layer=0).cuda()
    heads, given = heads_of(TOKENS), {}
    if packed:
        places = torch.cat((torch.arange(120), torch.arange(TOKENS - 120))).expand(2, -1).cuda()
        given = {"positions": places, "segments": torch.ones_like(places) + (torch.arange(TOKENS) >= 120).cuda()}
    look = AttentionSpec(scale=0.125, scores=scores, window=window)
    flexed = compute_attention(heads, ForwardContext(TOKENS, device="cuda", **given), look)
    monkeypatch.setattr(module, "can_use_flex", lambda *_: False)
    dense = compute_attention(heads, ForwardContext(TOKENS, device="cuda", **given), look)
    assert (flexed - dense).abs().max() < 5e-3  # float32 products may run as TF32


def test_flex_attention_trains_the_bias(monkeypatch):
    torch.manual_seed(0)
    scores, heads = T5Bias(heads=4, head_dim=64, layer=0).cuda(), heads_of(TOKENS)
    look, grads = AttentionSpec(scale=0.125, scores=scores), []
    for dense in (False, True):
        if dense:
            monkeypatch.setattr(module, "can_use_flex", lambda *_: False)
        scores.zero_grad()
        compute_attention(heads, ForwardContext(TOKENS, device="cuda"), look).square().sum().backward()
        grads.append(next(scores.parameters()).grad.clone())
    assert (grads[0] - grads[1]).abs().max() < 2e-2 * grads[1].abs().max()


@pytest.mark.parametrize(
    "look",
    [AttentionSpec(scale=0.125), AttentionSpec(scale=0.125, chunk=64), AttentionSpec(scale=0.125, window=64)],
    ids=str,
)
def test_pieces_of_a_prompt_equal_the_whole(look):
    """Bottom-right causal attention without a mask of all pairs."""
    heads = heads_of(TOKENS, torch.bfloat16)
    whole = compute_attention(heads, ForwardContext(TOKENS, device="cuda"), look)
    reach = look.chunk or look.window
    sizes = {"batch": 2, "kv_heads": 2, "head_dim": 64, "length": TOKENS, "dtype": torch.bfloat16, "device": "cuda"}
    cache, begin, parts = KVCache.empty(max_keys={"": reach}, **sizes), 0, []
    for tokens in (128, 64, 100, 1, 7):
        q, k, v = (x[:, :, begin : begin + tokens] for x in heads)
        step = ForwardContext(tokens, cache=cache, device="cuda")
        k, v = cache.append("", k, v)
        parts.append(compute_attention(Heads(q, k, v), step, look))
        cache.advance(tokens)
        begin += tokens
    assert (torch.cat(parts, dim=2).float() - whole.float()).abs().max() < 2e-2


@pytest.mark.parametrize(
    "rule", [Standard(), IRope(chunk=16), LongRoPE(original_len=16)], ids=lambda r: type(r).__name__
)
def test_models_give_the_logits_of_the_cpu_whole_and_cached(rule):
    net, tokens = make_tiny_decoder(rope=rule, gain=4.0), make_random_tokens(2, 40)
    expected = net(tokens).logits
    net, tokens = net.cuda(), tokens.cuda()
    scale = expected.abs().max()
    assert (net(tokens).logits.cpu() - expected).abs().max() < 1e-3 * scale
    assert (decode_in_chunks(net, tokens, [17, 5, 1]).cpu() - expected).abs().max() < 1e-3 * scale


@pytest.mark.parametrize("rule", [Standard(), IRope(chunk=16)], ids=lambda r: type(r).__name__)
def test_a_decoder_compiles_as_one_graph(rule):
    net, tokens = make_tiny_decoder(rope=rule, gain=4.0).cuda(), make_random_tokens(2, 40).cuda()
    eager = net(tokens).logits
    torch._dynamo.reset()
    compiled = torch.compile(net, fullgraph=True)(tokens).logits
    assert (compiled - eager).abs().max() < 2e-3 * eager.abs().max()


@pytest.mark.parametrize("keys", [100, 33_000, 40_001])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_query_that_is_spread_over_many_keys_equals_float64(keys, dtype):
    heads = heads_of(keys, dtype)
    heads = Heads(heads.q[:, :, -1:], heads.k, heads.v)
    cache = KVCache.empty(max_keys={"": None}, batch=2, kv_heads=2, head_dim=64, length=keys, device="cuda")
    cache.length = keys - 1
    got = compute_attention(heads, ForwardContext(1, cache=cache, device="cuda"), AttentionSpec(scale=0.5))
    q, k, v = (x.double() for x in heads)
    k, v = k.repeat_interleave(2, dim=1), v.repeat_interleave(2, dim=1)
    expected = (q @ k.transpose(-1, -2) * 0.5).softmax(-1) @ v
    assert (got.double() - expected).abs().max() < 1e-2


@pytest.mark.parametrize("made_inside", [False, True], ids=["float32 cache", "cache made under autocast"])
def test_prompts_are_read_in_pieces_under_autocast(made_inside):
    net, tokens = make_tiny_decoder(gain=4.0).cuda(), make_random_tokens(2, 40).cuda()
    outside = net.new_cache(2, 40)
    with torch.autocast("cuda", torch.bfloat16), torch.no_grad():
        cache = net.new_cache(2, 40) if made_inside else outside
        parts = [net(piece, cache=cache).logits for piece in tokens.split(15, dim=1)]
        whole = net(tokens).logits
    assert cache.layers["0/attention"].keys_BKSD.dtype == (torch.bfloat16 if made_inside else torch.float32)
    assert (torch.cat(parts, dim=1).float() - whole.float()).abs().max() < 0.05 * whole.abs().max()
