"""Attention of models whose other parts aptlab does not have: gpt-oss and Llama 4 with copied weights.

Legend: B batch, T tokens, C width.
"""

from functools import partial
from types import SimpleNamespace

import pytest
import torch

from aptlab.models.hf import read_attention
from aptlab.nn.attention import FullAttention
from aptlab.nn.context import ForwardContext
from aptlab.nn.norm import RMSNorm
from aptlab.nn.positions.rope import Growth, YaRN
from aptlab.nn.shape import Shape
from aptlab.nn.window import SlidingWindow
from aptlab.testing.tiny import make_decoder
from tests.models.hf.making import transformers

SHAPE = Shape(dim=32, depth=4, heads=4, kv_heads=2, head_dim=16, hidden=8)
SIZES = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
T = 40


def ours(parts):
    """Our attention layers by what a config says."""

    options = {name: getattr(parts, name) for name in ("bias", "qk_norm", "window", "sinks")}
    attention = partial(FullAttention, **options)
    norm = partial(RMSNorm, eps=parts.eps)
    return make_decoder(SHAPE, vocab=5, rope=parts.rope, attention=attention, norm=norm).eval()


def copied(mine, theirs):
    """Give our layer the weights of one of theirs, after drawing these anew."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in theirs.parameters():
            weight.normal_(std=0.2 if weight.ndim > 1 else 0.5, generator=generator)
        rows = [theirs.q_proj, theirs.k_proj, theirs.v_proj]
        mine.qkv.weight.copy_(torch.cat([row.weight for row in rows]))
        mine.out.weight.copy_(theirs.o_proj.weight)
        if mine.qkv.bias is not None:
            mine.qkv.bias.copy_(torch.cat([row.bias for row in rows]))
            mine.out.bias.copy_(theirs.o_proj.bias)
        if mine.sinks is not None:
            mine.sinks.copy_(theirs.sinks)
    return mine


def mask_of(window=None, chunk=None):
    """Added to the logits, [1, 1, T, T]."""
    query, key = torch.arange(T).unsqueeze(1), torch.arange(T)
    seen = key <= query
    seen = seen & (key > query - window) if window else seen
    seen = seen & (key // chunk == query // chunk) if chunk else seen
    return torch.zeros(T, T).masked_fill(~seen, torch.finfo(torch.float32).min)[None, None]


@pytest.fixture(scope="module")
def gpt_oss():
    module = transformers().models.gpt_oss
    config = module.GptOssConfig(**SIZES, sliding_window=6, max_position_embeddings=64)
    config.rope_parameters |= {"original_max_position_embeddings": 16, "factor": 4.0, "rope_theta": 150.0}
    config._attn_implementation = "eager"
    return SimpleNamespace(config=config, **vars(module.modeling_gpt_oss))


def test_the_gpt_oss_config_maps_to_our_parts(gpt_oss):
    parts = read_attention(gpt_oss.config.to_dict())
    assert parts.rope == YaRN(base=150.0, factor=4.0, original_len=16, truncate=False)
    assert parts.window == SlidingWindow(size=6, full_every=2)
    assert (parts.sinks, parts.bias, parts.qk_norm) == (True, True, False)


def test_the_gpt_oss_config_of_the_first_release_maps_too():
    rope = {"rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False}
    given = {"model_type": "gpt_oss", "num_hidden_layers": 36, "rope_theta": 150000, "max_position_embeddings": 131072}
    given |= {"rope_scaling": rope | {"original_max_position_embeddings": 4096}, "sliding_window": 128}
    parts = read_attention(given)
    assert parts.rope == YaRN(base=150_000.0, factor=32.0, original_len=4096, truncate=False)
    assert parts.window == SlidingWindow(size=128, full_every=2)
    assert parts.notes == ()


@pytest.mark.parametrize("layer", range(4))
def test_our_attention_is_that_of_gpt_oss(layer, gpt_oss):
    parts = read_attention(gpt_oss.config.to_dict())
    theirs = gpt_oss.GptOssAttention(gpt_oss.config, layer)
    mine = copied(ours(parts).blocks[layer].attention, theirs)
    x = torch.randn(2, T, 32, generator=torch.Generator().manual_seed(layer))
    positions = torch.arange(T).unsqueeze(0)
    angles = gpt_oss.GptOssRotaryEmbedding(gpt_oss.config)(x, positions)
    with torch.no_grad():
        expected, _ = theirs(x, angles, mask_of(window=6 if layer % 2 == 0 else None))
        got = mine(x, ForwardContext(T))
        without = torch.nn.Parameter(torch.full_like(mine.sinks, -1e4))
        mine.sinks = without
        assert (mine(x, ForwardContext(T)) - expected).abs().max() > 1e-2, "the sinks change nothing"
    assert (got - expected).abs().max().item() <= 1e-5


def llama4(**changes):
    module = transformers().models.llama4
    given = SIZES | {"attention_chunk_size": 7, "floor_scale": 5, "attn_scale": 0.3, "rms_norm_eps": 0.01} | changes
    config = module.Llama4TextConfig(**given, rope_parameters={"rope_type": "default", "rope_theta": 100.0})
    config._attn_implementation = "eager"
    return SimpleNamespace(config=config, **vars(module.modeling_llama4))


@pytest.mark.parametrize("layer", range(4))
@pytest.mark.parametrize("qk_norm", [True, False])
def test_our_attention_is_that_of_llama4(layer, qk_norm):
    module = llama4(use_qk_norm=qk_norm)
    parts = read_attention(module.config.to_dict())
    assert (parts.rope.interval, parts.rope.chunk, parts.rope.growth) == (4, 7, Growth(floor=5, scale=0.3))
    theirs = module.Llama4TextAttention(module.config, layer)
    mine = copied(ours(parts).blocks[layer].attention, theirs)
    x = torch.randn(2, T, 32, generator=torch.Generator().manual_seed(layer))
    positions = torch.arange(T).unsqueeze(0)
    angles = module.Llama4TextRotaryEmbedding(module.config)(x, positions)
    with torch.no_grad():
        expected, _ = theirs(x, angles, mask_of(chunk=7 if layer < 3 else None))
        got = mine(x, ForwardContext(T))
    assert (got - expected).abs().max().item() <= 1e-5


def test_queries_of_llama4_grow_with_position_ids_in_ours_and_with_the_order_in_transformers():
    """Left padding moves a token's order and not its position; transformers 5.23 grows by order (a known defect)."""
    module = llama4()
    theirs = module.Llama4TextAttention(module.config, 3)
    mine = copied(ours(read_attention(module.config.to_dict())).blocks[3].attention, theirs)
    x = torch.randn(1, T, 32, generator=torch.Generator().manual_seed(0))
    shifted = torch.arange(T).unsqueeze(0) + 25
    angles = module.Llama4TextRotaryEmbedding(module.config)(x, shifted)
    with torch.no_grad():
        plain, _ = theirs(x, module.Llama4TextRotaryEmbedding(module.config)(x, shifted - 25), mask_of())
        moved, _ = theirs(x, angles, mask_of())
        assert torch.equal(plain, moved), "transformers reads position_ids here now: drop this test"
        assert (mine(x, ForwardContext(T)) - plain).abs().max() <= 1e-5
        got = mine(x, ForwardContext(T, positions=shifted))
        law = 1 + 0.3 * torch.log1p(torch.floor((shifted.float() + 1) / 5))
        order = 1 + 0.3 * torch.log1p(torch.floor((shifted.float() - 24) / 5))
        theirs.q_proj.register_forward_hook(lambda _, __, out: out * (law / order).unsqueeze(-1))
        expected, _ = theirs(x, angles, mask_of())
    assert (got - plain).abs().max() > 1e-2
    assert (got - expected).abs().max() <= 1e-5
