"""The Hugging Face layouts that aptlab reads and writes: what each can hold, its names and its defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

NAMES = {
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attention.qkv": "self_attn.q_proj self_attn.k_proj self_attn.v_proj",
    "attention.out": "self_attn.o_proj",
    "attention.q_norm": "self_attn.q_norm",
    "attention.k_norm": "self_attn.k_norm",
    "ffn.gate_up": "mlp.gate_proj mlp.up_proj",
    "ffn.down": "mlp.down_proj",
}
FUSED = NAMES | {"attention.qkv": "self_attn.qkv_proj", "ffn.gate_up": "mlp.gate_up_proj"}
SANDWICH = NAMES | {
    "attention_smooth.norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "ffn_smooth.norm": "post_feedforward_layernorm",
}
FEED_FORWARD = NAMES | {
    "ffn.gate_up": "feed_forward.gate_proj feed_forward.up_proj",
    "ffn.down": "feed_forward.down_proj",
}


@dataclass(frozen=True, kw_only=True)
class Family:
    """One layout.

    biases     attention.bias that it can have
    windows    which layers may have a window: none, all alike, or any of them
    schedule   layers without rotation are possible
    chunked    blocks, growing queries and a norm after rotation are possible
    sandwich   branches are normalised before they join, norms are stored less one, embeddings are scaled
    partial    the first dims of a head may rotate alone
    expert     attention has sinks, and the feed-forward is one clamped, biased expert of a mixture
    layout     of rotary pairs
    names      of our matrices, separated by blanks where there are several
    defaults   of keys that a config.json may leave out, from transformers' configuration classes
    """

    model_type: str
    architecture: str
    title: str
    biases: tuple[bool | str, ...] = (False,)
    qk_norm: bool = False
    ffn_bias: bool = False
    windows: str = "none"
    schedule: bool = False
    chunked: bool = False
    sandwich: bool = False
    partial: bool = False
    expert: bool = False
    layout: str = "half"
    names: Mapping[str, str] = field(default_factory=lambda: NAMES)
    defaults: Mapping[str, Any] = field(default_factory=dict)


LLAMA = Family(
    model_type="llama",
    architecture="LlamaForCausalLM",
    title="Llama",
    biases=(False, True),
    ffn_bias=True,
    defaults={"rms_norm_eps": 1e-6},
)
MISTRAL = Family(
    model_type="mistral",
    architecture="MistralForCausalLM",
    title="Mistral",
    windows="all",
    defaults={"rms_norm_eps": 1e-6, "num_key_value_heads": 8, "sliding_window": 4096},
)
QWEN2 = Family(
    model_type="qwen2",
    architecture="Qwen2ForCausalLM",
    title="Qwen 2",
    biases=("qkv",),
    windows="any",
    defaults={"rms_norm_eps": 1e-6, "sliding_window": 4096, "max_window_layers": 28},
)
QWEN3 = Family(
    model_type="qwen3",
    architecture="Qwen3ForCausalLM",
    title="Qwen 3",
    biases=(False, True),
    qk_norm=True,
    windows="any",
    defaults={"rms_norm_eps": 1e-6, "head_dim": 128, "sliding_window": 4096, "max_window_layers": 28},
)
SMOLLM3 = Family(
    model_type="smollm3",
    architecture="SmolLM3ForCausalLM",
    title="SmolLM 3",
    biases=(False, True),
    ffn_bias=True,
    windows="any",
    schedule=True,
    defaults={
        "rms_norm_eps": 1e-6,
        "num_key_value_heads": 4,
        "tie_word_embeddings": True,
        "rope_theta": 2_000_000.0,
        "no_rope_layer_interval": 4,
    },
)
PHI3 = Family(
    model_type="phi3",
    architecture="Phi3ForCausalLM",
    title="Phi-3",
    windows="all",
    partial=True,
    names=FUSED,
    defaults={"rms_norm_eps": 1e-5, "original_max_position_embeddings": 4096},
)
GEMMA3 = Family(
    model_type="gemma3_text",
    architecture="Gemma3ForCausalLM",
    title="Gemma 3",
    biases=(False, True),
    qk_norm=True,
    windows="any",
    sandwich=True,
    names=SANDWICH,
    defaults={
        "vocab_size": 262_208,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "hidden_activation": "gelu_pytorch_tanh",
        "max_position_embeddings": 131_072,
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
    biases=(False, True),
    schedule=True,
    chunked=True,
    layout="interleaved",
    names=FEED_FORWARD,
    defaults={
        "rms_norm_eps": 1e-5,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "rope_theta": 500_000.0,
        "no_rope_layer_interval": 4,
        "attention_chunk_size": 8192,
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
    biases=(False, True),
    ffn_bias=True,
    windows="any",
    expert=True,
    names=NAMES | {"attention": "self_attn"},
    defaults={
        "rms_norm_eps": 1e-5,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "num_local_experts": 128,
        "swiglu_alpha": 1.702,
        "swiglu_limit": 7.0,
        "attention_bias": True,
        "sliding_window": 128,
        "sliding_window_pattern": 2,
        "rope_theta": 150_000.0,
        "rope_scaling": {
            "rope_type": "yarn",
            "factor": 32.0,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "truncate": False,
            "original_max_position_embeddings": 4096,
        },
    },
)

ALL = (LLAMA, MISTRAL, QWEN2, QWEN3, SMOLLM3, PHI3, GEMMA3, LLAMA4, GPT_OSS)
FAMILIES = {family.model_type: family for family in ALL}
