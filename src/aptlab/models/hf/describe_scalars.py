"""The keys of a config.json that layouts with numbers of their own have, under the names of most layouts."""

from __future__ import annotations

import math
from typing import Any

from aptlab.errors import ConfigError
from aptlab.models.hf.layout import Family
from aptlab.models.hf.traits import Traits


def describe_scalars(family: Family, found: Traits, config: dict[str, Any]) -> dict[str, Any]:
    """What the layout says beside sizes, rotation and the block; a growth goes into the config's rope parameters."""
    values: dict[str, Any] = {}
    if family.scaled:
        scale = found.around.logits.scale
        values["embedding_multiplier"], values["residual_multiplier"] = found.multipliers
        values["attention_multiplier"] = 1 / math.sqrt(found.head_dim) if scale is None else scale
        values["logits_scaling"] = 1 / found.around.head.scale
    if family.out_bias:
        values[family.out_bias] = found.bias is True
    if family.ffn_bias:
        values[family.bias_key] = found.ffn_bias
    if family.growing:
        write_growth(found, config)
    if family.windows == "all":
        values["sliding_window"] = next((size for size in found.windows if size is not None), None)
    return values


def write_growth(found: Traits, config: dict[str, Any]) -> None:
    """Ministral 3's growth in both forms of the rope; ConfigError where it begins elsewhere than the rule stretches."""
    growth = found.growths[0]
    assert growth is not None
    length = next((rule.scaling.original_len for rule in found.rules if rule.scaling), growth.floor)
    if length != growth.floor:
        raise ConfigError(
            f"rope.growth.floor={growth.floor} with rope.inner.original_len={length} cannot be exported to format=hf: "
            "the Ministral 3 layout has one length for both; train with equal ones to export"
        )
    own = {"original_max_position_embeddings": length, "llama_4_scaling_beta": growth.scale}
    for key in ("rope_parameters", "rope_scaling"):
        if config[key] is not None:
            config[key] = config[key] | own
