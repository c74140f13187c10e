"""What a config.json may leave out: the values of transformers' configuration classes (5.24), by model_type.

`Family.defaults` has what a layout reads beside sizes; sizes stand here. A test compares every value with transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aptlab.models.hf.family import FAMILIES

KEYS = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
KEYS += ("num_key_value_heads", "max_position_embeddings")
SIZES = {
    "llama": (32_000, 4096, 11_008, 32, 32, None, 2048),
    "mistral": (32_000, 4096, 14_336, 32, 32, 8, 131_072),
    "qwen2": (151_936, 4096, 22_016, 32, 32, 32, 32_768),
    "qwen3": (151_936, 4096, 22_016, 32, 32, 32, 32_768),
    "smollm3": (128_256, 2048, 11_008, 36, 16, 4, 32_768),
    "phi3": (32_064, 3072, 8192, 32, 32, None, 4096),
    "gemma3_text": (262_208, 2304, 9216, 26, 8, 4, 131_072),
    "llama4_text": (202_048, 5120, 8192, 48, 40, 8, 131_072),
    "gpt_oss": (201_088, 2880, 2880, 36, 64, 8, 131_072),
    "gemma2": (256_000, 2304, 9216, 26, 8, 4, 8192),
    "olmo2": (50_304, 4096, 11_008, 32, 32, None, 2048),
    "olmo3": (50_304, 4096, 11_008, 32, 32, None, 2048),
    "gpt_neox": (50_432, 6144, 24_576, 44, 64, None, 2048),
    "cohere": (256_000, 8192, 22_528, 40, 64, None, 8192),
    "cohere2": (256_000, 8192, 22_528, 40, 64, None, 8192),
    "stablelm": (50_304, 2560, 6912, 32, 32, 32, 4096),
    "phi": (51_200, 2048, 8192, 24, 32, None, 2048),
    "granite": (32_000, 4096, 11_008, 32, 32, None, 2048),
    "granitemoehybrid": (32_000, 4096, 1024, 32, 32, None, 2048),
    "seed_oss": (155_136, 4096, 27_648, 64, 80, 8, 524_288),
    "ernie4_5": (103_424, 1024, 3072, 18, 16, 2, 131_072),
    "ministral": (32_000, 4096, 14_336, 32, 32, 8, 131_072),
    "ministral3": (131_072, 4096, 14_336, 34, 32, 8, 262_144),
    "hunyuan_v1_dense": (290_943, 4096, 11_008, 32, 32, None, 2048),
    "glm": (151_552, 4096, 13_696, 40, 32, 2, 131_072),
    "glm4": (151_552, 4096, 13_696, 40, 32, 2, 131_072),
}
RESOLVED = ("rope_theta", "rope_local_base_freq", "rope_parameters")  # which of these count is asked of the whole file
TOLD = (*KEYS, "head_dim", "intermediate_size_mlp", "rms_norm_eps")


def fill_defaults(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config.json with what it leaves out, under the keys that most layouts have; those of the rope stay as given."""
    kind = str(config.get("model_type"))
    if kind not in FAMILIES:
        return dict(config)
    given = rename_keys(config)
    sizes = dict(zip(KEYS, SIZES[kind], strict=True)) if kind in SIZES else {}
    known = {key: value for key, value in FAMILIES[kind].defaults.items() if key not in RESOLVED}
    return sizes | known | given


def rename_keys(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config.json with the keys of its layout under those that most layouts have, which are not read there."""
    kind = str(config.get("model_type"))
    keys = FAMILIES[kind].keys if kind in FAMILIES else {}
    plain = {key: value for key, value in config.items() if key not in keys.values()}
    return plain | {ours: config[key] for key, ours in keys.items() if key in config}


def describe_defaults(config: Mapping[str, Any]) -> list[str]:
    """A line on the sizes that a config.json leaves out; null is what follows from the others."""
    filled, given = fill_defaults(config), rename_keys(config)
    absent = {key: filled[key] for key in TOLD if key not in given and filled.get(key) is not None}
    if not absent:
        return []
    values = ", ".join(f"{key}={value}" for key, value in absent.items())
    return [
        f"config.json leaves out {values}: {'these are' if len(absent) > 1 else 'this is'} transformers' default for "
        f"model_type={config.get('model_type')}"
    ]
