"""The Hugging Face layouts that aptlab reads and writes. The README's list of families is made of them."""

from __future__ import annotations

from aptlab.models.hf.family_blocks import BLOCKS
from aptlab.models.hf.layout import FEED_FORWARD, FUSED, NAMES, SANDWICH, Family
from aptlab.models.hf.scalar_families import SCALAR

LLAMA = Family(
    model_type="llama",
    architecture="LlamaForCausalLM",
    title="Llama",
    models="Llama 1, 2, 3 to 3.3, Vicuna, TinyLlama, Yi, SmolLM 2",
    biases=(False, True),
    ffn_bias=True,
    defaults={"rms_norm_eps": 1e-6},
)
MISTRAL = Family(
    model_type="mistral",
    architecture="MistralForCausalLM",
    title="Mistral",
    models="Mistral 7B, Mathstral, Zephyr",
    windows="all",
    defaults={"rms_norm_eps": 1e-6, "sliding_window": 4096},
)
QWEN2 = Family(
    model_type="qwen2",
    architecture="Qwen2ForCausalLM",
    title="Qwen 2",
    models="Qwen 2, Qwen 2.5, QwQ",
    biases=("qkv",),
    windows="any",
    defaults={"rms_norm_eps": 1e-6, "sliding_window": 4096, "max_window_layers": 28},
)
QWEN3 = Family(
    model_type="qwen3",
    architecture="Qwen3ForCausalLM",
    title="Qwen 3",
    models="Qwen 3, dense",
    biases=(False, True),
    qk_norm=True,
    windows="any",
    defaults={"rms_norm_eps": 1e-6, "head_dim": 128, "sliding_window": 4096, "max_window_layers": 28},
)
SMOLLM3 = Family(
    model_type="smollm3",
    architecture="SmolLM3ForCausalLM",
    title="SmolLM 3",
    models="SmolLM 3",
    biases=(False, True),
    ffn_bias=True,
    windows="any",
    schedule=True,
    defaults={
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": True,
        "rope_theta": 2_000_000.0,
        "no_rope_layer_interval": 4,
    },
)
PHI3 = Family(
    model_type="phi3",
    architecture="Phi3ForCausalLM",
    title="Phi-3",
    models="Phi-3 mini and medium, Phi-3.5 mini, Phi-4, Phi-4 mini",
    windows="all",
    partial=True,
    names=FUSED,
    defaults={"rms_norm_eps": 1e-5, "original_max_position_embeddings": 4096},
)
GEMMA3 = Family(
    model_type="gemma3_text",
    architecture="Gemma3ForCausalLM",
    title="Gemma 3",
    models="Gemma 3, its language model",
    biases=(False, True),
    qk_norm=True,
    windows="any",
    sandwich=True,
    two_ropes=True,
    blocks=("sandwich",),
    names=SANDWICH,
    defaults={
        "head_dim": 256,
        "hidden_activation": "gelu_pytorch_tanh",
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": True,
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
        "sliding_window_pattern": 6,
        "rope_theta": 1_000_000.0,
        "rope_local_base_freq": 10_000.0,
    },
)
LLAMA4 = Family(
    model_type="llama4_text",
    architecture="Llama4ForCausalLM",
    title="Llama 4",
    models="dense Llama 4 (moe_layers=[])",
    biases=(False, True),
    schedule=True,
    chunked=True,
    layout="interleaved",
    names=FEED_FORWARD,
    defaults={
        "rms_norm_eps": 1e-5,
        "head_dim": 128,
        "rope_theta": 500_000.0,
        "no_rope_layer_interval": 4,
        "attention_chunk_size": 8192,
        "intermediate_size_mlp": 16_384,
        "use_qk_norm": True,
        "attn_temperature_tuning": True,
        "floor_scale": 8192,
        "attn_scale": 0.1,
        "interleave_moe_layer_step": 1,
    },
)
GPT_OSS = Family(
    model_type="gpt_oss",
    architecture="GptOssForCausalLM",
    title="gpt-oss",
    models="gpt-oss with one expert",
    biases=(False, True),
    ffn_bias=True,
    windows="any",
    expert=True,
    names=NAMES | {"attention": "self_attn"},
    defaults={
        "rms_norm_eps": 1e-5,
        "head_dim": 64,
        "num_local_experts": 128,
        "swiglu_alpha": 1.702,
        "swiglu_limit": 7.0,
        "attention_bias": True,
        "sliding_window": 128,
        "sliding_window_pattern": 2,
        "rope_theta": 150_000.0,
        "rope_parameters": {
            "rope_type": "yarn",
            "factor": 32.0,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "truncate": False,
            "original_max_position_embeddings": 4096,
        },
    },
)

PLAIN = (LLAMA, MISTRAL, QWEN2, QWEN3, SMOLLM3, PHI3, GEMMA3, LLAMA4, GPT_OSS)
ALL = (*PLAIN, *BLOCKS, *SCALAR)  # a file with more layouts adds its tuple here, and the README's list follows
FAMILIES = {family.model_type: family for family in ALL}


def list_families() -> list[tuple[str, str, str]]:
    """(title, model_type, released models) of every layout that is read and written, by title."""
    return sorted((family.title, family.model_type, family.models) for family in ALL)
