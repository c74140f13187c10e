"""config.json files of released models, as they stand on the Hub: the same frequencies, reach and schedule.

Sizes that attention does not depend on are left out. Phi-3's searched lists are replaced by made-up ones.
"""

import pytest
import torch

from aptlab.models.hf import read_attention
from aptlab.nn.window import SlidingWindow
from tests.models.hf.making import transformers

LLAMA_31 = {
    "model_type": "llama",
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "rope_theta": 500000.0,
}
MISTRAL = {
    "model_type": "mistral",
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 32768,
    "rope_theta": 10000.0,
    "sliding_window": 4096,
}
QWEN_25 = {
    "model_type": "qwen2",
    "hidden_size": 3584,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "max_position_embeddings": 32768,
    "max_window_layers": 28,
    "rope_theta": 1000000.0,
    "sliding_window": 131072,
    "use_sliding_window": False,
    "rope_scaling": {"factor": 4.0, "original_max_position_embeddings": 32768, "type": "yarn"},
}
QWEN_3 = {
    "model_type": "qwen3",
    "head_dim": 128,
    "hidden_size": 4096,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 40960,
    "max_window_layers": 36,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": None,
    "use_sliding_window": False,
}
PHI_3 = {
    "model_type": "phi3",
    "hidden_size": 3072,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "max_position_embeddings": 131072,
    "original_max_position_embeddings": 4096,
    "rope_scaling": {
        "long_factor": [1.0 + i for i in range(48)],
        "short_factor": [1.0 + 0.05 * i for i in range(48)],
        "type": "longrope",
    },
    "rope_theta": 10000.0,
    "sliding_window": 262144,
}
GEMMA_3_1B = {
    "model_type": "gemma3_text",
    "head_dim": 256,
    "hidden_size": 1152,
    "num_hidden_layers": 26,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "max_position_embeddings": 32768,
    "query_pre_attn_scalar": 256,
    "rope_local_base_freq": 10000,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": 512,
    "sliding_window_pattern": 6,
}
GEMMA_3_27B = {
    "model_type": "gemma3_text",
    "head_dim": 128,
    "hidden_size": 5376,
    "num_hidden_layers": 62,
    "num_attention_heads": 32,
    "num_key_value_heads": 16,
    "query_pre_attn_scalar": 168,
    "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
    "sliding_window": 1024,
}
SMOLLM_3 = {
    "model_type": "smollm3",
    "hidden_size": 2048,
    "num_hidden_layers": 36,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "max_position_embeddings": 65536,
    "no_rope_layer_interval": 4,
    "no_rope_layers": [1, 1, 1, 0] * 9,
    "layer_types": ["full_attention"] * 36,
    "rope_theta": 5000000.0,
    "sliding_window": None,
    "use_sliding_window": False,
}
GPT_OSS = {
    "model_type": "gpt_oss",
    "attention_bias": True,
    "head_dim": 64,
    "hidden_size": 2880,
    "num_hidden_layers": 24,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "initial_context_length": 4096,
    "layer_types": ["sliding_attention", "full_attention"] * 12,
    "max_position_embeddings": 131072,
    "rope_scaling": {
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "factor": 32.0,
        "original_max_position_embeddings": 4096,
        "rope_type": "yarn",
        "truncate": False,
    },
    "rope_theta": 150000,
    "sliding_window": 128,
}
SCOUT = {
    "model_type": "llama4_text",
    "attention_chunk_size": 8192,
    "attn_scale": 0.1,
    "floor_scale": 8192,
    "head_dim": 128,
    "hidden_size": 5120,
    "num_hidden_layers": 48,
    "num_attention_heads": 40,
    "num_key_value_heads": 8,
    "max_position_embeddings": 10485760,
    "no_rope_layers": [],
    "rope_scaling": {
        "factor": 16.0,
        "high_freq_factor": 1.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "rope_theta": 500000.0,
    "use_qk_norm": True,
}
GRANITE_33_8B = {
    "model_type": "granite",
    "attention_multiplier": 0.0078125,
    "embedding_multiplier": 12.0,
    "hidden_size": 4096,
    "logits_scaling": 16.0,
    "max_position_embeddings": 131072,
    "num_attention_heads": 32,
    "num_hidden_layers": 40,
    "num_key_value_heads": 8,
    "residual_multiplier": 0.22,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "rope_theta": 10000000.0,
}
SEED_OSS = {
    "model_type": "seed_oss",
    "attention_bias": True,
    "attention_out_bias": False,
    "head_dim": 128,
    "hidden_size": 5120,
    "max_position_embeddings": 524288,
    "num_attention_heads": 80,
    "num_hidden_layers": 64,
    "num_key_value_heads": 8,
    "rope_scaling": {"rope_type": "default"},
    "rope_theta": 10000000.0,
}
ERNIE_45 = {
    "model_type": "ernie4_5",
    "head_dim": 128,
    "hidden_size": 1024,
    "max_position_embeddings": 131072,
    "num_attention_heads": 16,
    "num_hidden_layers": 18,
    "num_key_value_heads": 2,
    "rope_scaling": None,
    "rope_theta": 500000.0,
    "use_bias": False,
}
GLM_4_9B = {  # without partial_rotary_factor, which is 0.5 there
    "model_type": "glm",
    "attention_bias": True,
    "head_dim": 128,
    "hidden_size": 4096,
    "max_position_embeddings": 131072,
    "num_attention_heads": 32,
    "num_hidden_layers": 40,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1.5625e-07,
    "rope_theta": 10000.0,
}
HUNYUAN_MT = {
    "model_type": "hunyuan_v1_dense",
    "head_dim": 128,
    "hidden_size": 4096,
    "max_position_embeddings": 32768,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "rope_scaling": {
        "alpha": 100000.0,
        "beta_fast": 32,
        "beta_slow": 1,
        "factor": 1.0,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
        "type": "dynamic",
    },
    "rope_theta": 10000.0,
    "use_qk_norm": True,
}
DEVSTRAL_SMALL_2 = {  # the text_config of a mistral3
    "model_type": "ministral3",
    "head_dim": 128,
    "hidden_size": 5120,
    "max_position_embeddings": 393216,
    "num_attention_heads": 32,
    "num_hidden_layers": 40,
    "num_key_value_heads": 8,
    "rope_parameters": {
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "factor": 48.0,
        "llama_4_scaling_beta": 0.1,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_theta": 100000000.0,
        "rope_type": "yarn",
        "type": "yarn",
    },
    "sliding_window": None,
}
RELEASED = {
    "llama 3.1 8b": (LLAMA_31, "llama.LlamaRotaryEmbedding", None),
    "mistral 7b 0.1": (MISTRAL, "mistral.MistralRotaryEmbedding", SlidingWindow(size=4096)),
    "mistral 7b 0.3": (MISTRAL | {"sliding_window": None}, "mistral.MistralRotaryEmbedding", None),
    "qwen 2.5 7b, yarn": (QWEN_25, "qwen2.Qwen2RotaryEmbedding", None),
    "qwen 3 8b": (QWEN_3, "qwen3.Qwen3RotaryEmbedding", None),
    "phi-3 mini 128k": (PHI_3, "phi3.Phi3RotaryEmbedding", SlidingWindow(size=262144)),
    "gemma 3 1b": (GEMMA_3_1B, "gemma3.Gemma3RotaryEmbedding", SlidingWindow(size=512, full_every=6)),
    "gemma 3 27b": (GEMMA_3_27B, "gemma3.Gemma3RotaryEmbedding", SlidingWindow(size=1024, full_every=6)),
    "smollm3 3b": (SMOLLM_3, "smollm3.SmolLM3RotaryEmbedding", None),
    "gpt-oss 20b": (GPT_OSS, "gpt_oss.GptOssRotaryEmbedding", SlidingWindow(size=128, full_every=2)),
    "llama 4 scout": (SCOUT, "llama4.Llama4TextRotaryEmbedding", None),
    "granite 3.3 8b": (GRANITE_33_8B, "granite.GraniteRotaryEmbedding", None),
    "seed-oss 36b": (SEED_OSS, "seed_oss.SeedOssRotaryEmbedding", None),
    "ernie 4.5 0.3b": (ERNIE_45, "ernie4_5.Ernie4_5RotaryEmbedding", None),
    "glm-4 9b": (GLM_4_9B, "glm.GlmRotaryEmbedding", None),
    "glm-4 9b 0414": (GLM_4_9B | {"model_type": "glm4"}, "glm4.Glm4RotaryEmbedding", None),
    "hunyuan-mt 7b": (HUNYUAN_MT, "hunyuan_v1_dense.HunYuanDenseV1RotaryEmbedding", None),
    "devstral small 2": (DEVSTRAL_SMALL_2, "ministral3.Ministral3RotaryEmbedding", None),
}


@pytest.mark.parametrize("name", RELEASED)
def test_frequencies_reach_and_temperature_are_those_of_transformers(name):
    given, target, window = RELEASED[name]
    config = transformers().AutoConfig.for_model(**given)
    module, _, kind = target.partition(".")
    rotary = getattr(getattr(transformers().models, module), f"modeling_{module}").__dict__[kind](config)
    parts = read_attention(given)
    assert parts.window == window
    head_dim = given.get("head_dim") or given["hidden_size"] // given["num_attention_heads"]
    kinds = getattr(config, "layer_types", None) or ["full_attention"] * given["num_hidden_layers"]
    rotations = getattr(config, "no_rope_layers", None) or [1] * len(kinds)
    for layer, (layer_type, rotates) in enumerate(zip(kinds, rotations, strict=True)):
        rule = parts.rope.for_layer(layer).rule
        assert (rule is not None) == bool(rotates)
        if rule is None:
            continue
        prefix = f"{layer_type}_" if module == "gemma3" else ""
        expected = getattr(rotary, f"{prefix}inv_freq").double()
        got = torch.tensor(rule.regimes(head_dim)[0], dtype=torch.float64)
        assert ((got - expected).abs() / expected).max() <= 1e-6
        assert rule.temperature == pytest.approx(getattr(rotary, f"{prefix}attention_scaling") ** 2, rel=1e-9)
        if parts.window is not None and layer_type != "chunked_attention":
            assert (parts.window.for_layer(layer) is None) == (
                layer_type == "full_attention" and module not in ("mistral", "phi3")
            )


def test_the_long_frequencies_of_phi_3_are_those_of_transformers():
    config = transformers().AutoConfig.for_model(**PHI_3)
    compute = transformers().modeling_rope_utils.ROPE_INIT_FUNCTIONS["longrope"]
    rule = read_attention(PHI_3).rope
    for length, mine in zip((4096, 4097), rule.regimes(96), strict=True):
        expected, factor = compute(config, seq_len=length)
        assert torch.tensor(mine).sub(expected).div(expected).abs().max() <= 1e-6
        assert rule.temperature == pytest.approx(factor**2, rel=1e-9)
        assert factor == pytest.approx(1.1902, abs=1e-4)
    assert rule.factor == 32


def test_scout_is_irope_and_needs_no_warning():
    parts = read_attention(SCOUT)
    assert (parts.rope.interval, parts.rope.chunk, parts.rope.qk_norm) == (4, 8192, True)
    assert [parts.rope.for_layer(layer).chunk for layer in range(4)] == [8192, 8192, 8192, None]
    assert parts.rope.for_layer(3).growth.floor == 8192
    assert read_attention(LLAMA_31).notes == parts.notes == ()


def test_numbers_of_released_models_are_theirs():
    assert read_attention(GRANITE_33_8B).logits.scale == 1 / 128
    assert [read_attention(config).bias for config in (SEED_OSS, ERNIE_45, GLM_4_9B)] == ["qkv", False, "qkv"]
    assert read_attention(HUNYUAN_MT).rope.base == 10000.0 * 100000.0 ** (128 / 126)
    growth = read_attention(DEVSTRAL_SMALL_2).rope.growth
    assert (growth.floor, growth.scale, growth.offset) == (8192, 0.1, 0)
