"""Small models of the layouts whose block is another one: as transformers writes them, and as the Hub has them."""

L = 16
THETA = {"rope_theta": 100.0}
YARN = THETA | {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": L}
PART = {"rope_parameters": THETA | {"rope_type": "default", "partial_rotary_factor": 0.5}}
LLAMA3 = THETA | {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3 |= {"original_max_position_embeddings": L}
HALF = {"partial_rotary_factor": 0.5}
SINGLE = {"num_key_value_heads": 4}
MIXED = ["sliding_attention", "sliding_attention", "full_attention"]
TWO = {"sliding_attention": THETA | {"rope_type": "default"}, "full_attention": YARN}
MODELS = {
    "gemma2": (
        "Gemma2Config",
        {"head_dim": 24, "query_pre_attn_scalar": 10, "sliding_window": 5, "num_hidden_layers": 4}
        | {"attn_logit_softcapping": 3.0, "final_logit_softcapping": 5.0},  # small enough to be reached
    ),
    "gemma2 without caps, untied": (
        "Gemma2Config",
        {"head_dim": 16, "query_pre_attn_scalar": 16, "attn_logit_softcapping": None, "final_logit_softcapping": None}
        | {"layer_types": ["full_attention"] * 3, "attention_bias": True, "tie_word_embeddings": False},
    ),
    "olmo2": ("Olmo2Config", {"rms_norm_eps": 1e-6}),
    "olmo2 yarn, biased": ("Olmo2Config", {"rope_parameters": YARN, "attention_bias": True} | SINGLE),
    "olmo3": ("Olmo3Config", {"rope_parameters": TWO, "sliding_window": 5, "layer_types": MIXED}),
    "olmo3 one rope": ("Olmo3Config", {"sliding_window": 5, "num_hidden_layers": 4, "rope_parameters": None}),
    "neox": ("GPTNeoXConfig", PART),
    "neox in turn, whole heads": (
        "GPTNeoXConfig",
        {"use_parallel_residual": False, "rope_parameters": YARN | {"partial_rotary_factor": 1.0}},
    ),
    "neox yarn": ("GPTNeoXConfig", {"rope_parameters": YARN | HALF}),
    "neox dynamic": ("GPTNeoXConfig", {"rope_parameters": THETA | HALF | {"rope_type": "dynamic", "factor": 4.0}}),
    "neox without attention biases": ("GPTNeoXConfig", PART | {"attention_bias": False, "hidden_act": "gelu_fast"}),
    "cohere": ("CohereConfig", {"logit_scale": 0.7}),
    "cohere qk_norm, untied": (
        "CohereConfig",
        {
            "logit_scale": 0.5,
            "use_qk_norm": True,
            "attention_bias": True,
            "tie_word_embeddings": False,
            "rope_parameters": YARN,
        },
    ),
    "cohere2": ("Cohere2Config", {"sliding_window": 5, "num_hidden_layers": 4, "logit_scale": 0.7}),
    "stablelm": ("StableLmConfig", PART | {"use_qkv_bias": True}),
    "stablelm parallel, qk_norm": ("StableLmConfig", PART | {"use_parallel_residual": True, "qk_layernorm": True}),
    "stablelm llama3": ("StableLmConfig", {"rope_parameters": LLAMA3 | HALF}),
    "phi": ("PhiConfig", PART),
    "phi linear": ("PhiConfig", {"rope_parameters": THETA | HALF | {"rope_type": "linear", "factor": 4.0}}),
    "phi qk_norm": ("PhiConfig", PART | {"qk_layernorm": True, "layer_norm_eps": 1e-3}),
}

SIZES = {"vocab_size": 61, "num_hidden_layers": 4, "hidden_size": 80, "num_attention_heads": 4}
SIZES |= {"intermediate_size": 48, "eos_token_id": 60, "bos_token_id": None, "pad_token_id": None}
SMALL = SIZES | {"max_position_embeddings": 4 * L}
PUBLISHED = {  # what config.json says on the Hub, without sizes; windows and lengths are cut with them
    "gemma-2-2b": {
        "model_type": "gemma2",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "attn_logit_softcapping": 50.0,
        "cache_implementation": "hybrid",
        "final_logit_softcapping": 30.0,
        "head_dim": 256,
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_activation": "gelu_pytorch_tanh",
        "num_key_value_heads": 4,
        "query_pre_attn_scalar": 256,
        "rms_norm_eps": 1e-06,
        "rope_theta": 10000.0,
        "sliding_window": 5,
    },
    "gemma-2-27b": {
        "model_type": "gemma2",
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
        "head_dim": 128,
        "hidden_activation": "gelu_pytorch_tanh",
        "num_key_value_heads": 2,
        "query_pre_attn_scalar": 144,
        "rms_norm_eps": 1e-06,
        "rope_theta": 10000.0,
        "sliding_window": 5,
    },
    "OLMo-2-1124-7B": {
        "model_type": "olmo2",
        "attention_bias": False,
        "hidden_act": "silu",
        "num_key_value_heads": 4,
        "rms_norm_eps": 1e-06,
        "rope_scaling": None,
        "rope_theta": 500000,
        "tie_word_embeddings": False,
    },
    "Olmo-3-1025-7B": {
        "model_type": "olmo3",
        "attention_bias": False,
        "hidden_act": "silu",
        "layer_types": ["sliding_attention"] * 3 + ["full_attention"],
        "num_key_value_heads": 4,
        "rms_norm_eps": 1e-06,
        "rope_scaling": {
            "attention_factor": 1.2079441541679836,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "factor": 8.0,
            "original_max_position_embeddings": L,
            "rope_type": "yarn",
        },
        "rope_theta": 500000,
        "sliding_window": 5,
        "tie_word_embeddings": False,
        "max_position_embeddings": 8 * L,
    },
    "pythia-160m": {
        "model_type": "gpt_neox",
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-05,
        "rotary_emb_base": 10000,
        "rotary_pct": 0.25,
        "hidden_size": 64,
        "tie_word_embeddings": False,
        "use_parallel_residual": True,
    },
    "c4ai-command-r-v01": {
        "model_type": "cohere",
        "attention_bias": False,
        "hidden_act": "silu",
        "layer_norm_eps": 1e-05,
        "logit_scale": 0.0625,
        "model_max_length": 131072,
        "num_key_value_heads": 4,
        "rope_theta": 8000000.0,
        "use_qk_norm": False,
    },
    "c4ai-command-r-plus": {
        "model_type": "cohere",
        "attention_bias": False,
        "hidden_act": "silu",
        "layer_norm_eps": 1e-05,
        "logit_scale": 0.8333333333333334,
        "num_key_value_heads": 2,
        "rope_theta": 75000000.0,
        "use_qk_norm": True,
    },
    "c4ai-command-r7b-12-2024": {
        "model_type": "cohere2",
        "attention_bias": False,
        "head_dim": 20,
        "hidden_act": "silu",
        "layer_norm_eps": 1e-05,
        "layer_switch": 4,
        "logit_scale": 0.25,
        "num_key_value_heads": 2,
        "position_embedding_type": "rope_gptj",
        "rope_scaling": None,
        "rope_theta": 50000,
        "rotary_pct": 1.0,
        "sliding_window": 5,
        "sliding_window_pattern": 4,
        "use_parallel_block": True,
    },
    "stablelm-2-1_6b": {
        "model_type": "stablelm",
        "hidden_act": "silu",
        "layer_norm_eps": 1e-05,
        "num_key_value_heads": 4,
        "partial_rotary_factor": 0.25,
        "hidden_size": 64,
        "rope_theta": 10000,
        "tie_word_embeddings": False,
        "use_qkv_bias": True,
    },
    "stablelm-2-12b": {
        "model_type": "stablelm",
        "hidden_act": "silu",
        "layer_norm_eps": 1e-05,
        "num_key_value_heads": 2,
        "partial_rotary_factor": 0.25,
        "hidden_size": 64,
        "qk_layernorm": True,
        "rope_theta": 10000,
        "tie_word_embeddings": False,
        "use_parallel_residual": True,
        "use_qkv_bias": False,
    },
    "phi-2": {
        "model_type": "phi",
        "attention_dropout": 0.0,
        "embd_pdrop": 0.0,
        "hidden_act": "gelu_new",
        "layer_norm_eps": 1e-05,
        "num_key_value_heads": 4,
        "partial_rotary_factor": 0.4,
        "qk_layernorm": False,
        "resid_pdrop": 0.1,
        "rope_scaling": None,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
    },
}
PUBLISHED["pythia-160m, stretched"] = PUBLISHED["pythia-160m"] | {  # as model cards say to edit the file
    "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": L}
}
