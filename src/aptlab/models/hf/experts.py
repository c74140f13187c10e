"""Mixtures of experts, which aptlab does not have yet: how a config.json says that a model is one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

KEYS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts", "num_moe_experts", "n_experts")
NAMES = ("mixtral", "deepseek_v2", "deepseek_v3", "dbrx", "dots1", "jamba", "llama4", "longcat_flash", "minimax")
NAMES += ("mistral4", "olmoe", "qwen3_next", "switch_transformers")  # that do not say "moe" and may leave the keys out


def find_experts(config: Mapping[str, Any]) -> str | None:
    """What says that the feed-forward layers are a mixture ("num_experts=64", or the model's type); None = nothing.

    A language model inside another is looked into.
    """
    kind = str(config.get("model_type"))
    for part in (config, config.get("text_config"), config.get("ffn_config")):
        if not isinstance(part, Mapping):
            continue
        for key in KEYS:
            count = part.get(key)
            most = max(count, default=0) if isinstance(count, list) else count
            if isinstance(most, int) and most > 1:
                return f"{key}={count}"
    return f"model_type={kind}" if "moe" in kind or kind in NAMES else None
