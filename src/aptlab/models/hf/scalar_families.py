"""Layouts that are Llama's or Mistral's but for numbers and details, read from transformers' own code."""

from __future__ import annotations

from aptlab.models.hf.layout import NAMES, Family
from aptlab.nn.attention import QKNorm

FACTORS = {"embedding_multiplier": 1.0, "attention_multiplier": 1.0, "residual_multiplier": 1.0, "logits_scaling": 1.0}
GRANITE = Family(
    model_type="granite",
    architecture="GraniteForCausalLM",
    title="Granite",
    models="Granite 3.0 to 4.1, dense; PowerLM",
    biases=(False, True),
    ffn_bias=True,
    scaled=True,
    head="scale",
    defaults=FACTORS | {"rms_norm_eps": 1e-6},
)
GRANITE4 = Family(
    model_type="granitemoehybrid",
    architecture="GraniteMoeHybridForCausalLM",
    title="Granite 4, dense",
    models="Granite 4.0 Micro, 1B and 350M (no -H), read alone: they leave as Granite",
    biases=(False, True),
    scaled=True,
    head="scale",
    names=NAMES | {"ffn.gate_up": "shared_mlp.input_linear", "ffn.down": "shared_mlp.output_linear"},
    keys={"shared_intermediate_size": "intermediate_size"},
    defaults=FACTORS | {"rms_norm_eps": 1e-6, "num_local_experts": 8, "shared_intermediate_size": 1024},
)
SEED_OSS = Family(
    model_type="seed_oss",
    architecture="SeedOssForCausalLM",
    title="Seed-OSS",
    models="Seed-OSS 36B",
    biases=(False, "qkv", True),
    out_bias="attention_out_bias",
    ffn_bias=True,
    defaults={
        "rms_norm_eps": 1e-6,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "attention_bias": True,
        "attention_out_bias": False,
    },
)
ERNIE = Family(
    model_type="ernie4_5",
    architecture="Ernie4_5ForCausalLM",
    title="ERNIE 4.5",
    models="ERNIE 4.5 0.3B",
    biases=(False, True),
    ffn_bias=True,
    bias_key="use_bias",
    keys={"use_bias": "attention_bias"},
    layout="interleaved",
    defaults={
        "rms_norm_eps": 1e-5,
        "num_key_value_heads": 2,
        "head_dim": 128,
        "rope_theta": 500_000.0,
        "tie_word_embeddings": True,
    },
)
MINISTRAL = Family(
    model_type="ministral",
    architecture="MinistralForCausalLM",
    title="Ministral",
    models="Ministral 8B of 2024",
    windows="any",
    defaults={"rms_norm_eps": 1e-6, "num_key_value_heads": 8, "sliding_window": 4096},
)
MINISTRAL3 = Family(
    model_type="ministral3",
    architecture="Ministral3ForCausalLM",
    title="Ministral 3",
    models="Ministral 3, Devstral 2, Devstral Small 2: their language model",
    windows="all",
    growing=True,
    defaults={
        "rms_norm_eps": 1e-5,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 262_144,
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 1_000_000.0,
            "factor": 16.0,
            "original_max_position_embeddings": 16_384,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "mscale": 1.0,
            "mscale_all_dim": 1.0,
            "llama_4_scaling_beta": 0.1,
        },
    },
)
HUNYUAN = Family(
    model_type="hunyuan_v1_dense",
    architecture="HunYuanDenseV1ForCausalLM",
    title="Hunyuan",
    models="Hunyuan 0.5B to 7B, Hunyuan-MT",
    biases=(False, True),
    qk_norms=(QKNorm(where="after"),),
    names=NAMES | {"attention.q_norm": "self_attn.query_layernorm", "attention.k_norm": "self_attn.key_layernorm"},
    defaults={"rms_norm_eps": 1e-5},
)
GATE_UP = NAMES | {"ffn.gate_up": "mlp.gate_up_proj"}
GLM_DEFAULTS = {
    "rms_norm_eps": 1.5625e-07,
    "num_key_value_heads": 2,
    "head_dim": 128,
    "attention_bias": True,
    "partial_rotary_factor": 0.5,
}
GLM = Family(
    model_type="glm",
    architecture="GlmForCausalLM",
    title="GLM-4 of 2024",
    models="GLM-4 9B, GLM-Edge",
    biases=(False, "qkv"),
    partial=True,
    layout="interleaved",
    names=GATE_UP,
    defaults=GLM_DEFAULTS,
)
GLM4 = Family(
    model_type="glm4",
    architecture="Glm4ForCausalLM",
    title="GLM-4 of 2025",
    models="GLM-4 0414 9B and 32B, GLM-Z1",
    biases=(False, "qkv"),
    blocks=("sandwich",),
    partial=True,
    layout="interleaved",
    names=GATE_UP
    | {
        "attention_norm_after": "post_self_attn_layernorm",
        "attention_smooth.norm": "post_self_attn_layernorm",
        "ffn_norm_after": "post_mlp_layernorm",
        "ffn_smooth.norm": "post_mlp_layernorm",
    },
    defaults=GLM_DEFAULTS,
)
SCALAR = (GRANITE, GRANITE4, SEED_OSS, ERNIE, MINISTRAL, MINISTRAL3, HUNYUAN, GLM, GLM4)
