"""What a config.json says about the block around the layers, norms on queries and keys, and caps of logits.

Every function takes a config that is completed by its family (`fill_defaults`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aptlab.errors import ConfigError
from aptlab.models.head import HeadRule
from aptlab.models.hf.layout import Family
from aptlab.nn.attention import LogitRule, QKNorm

Config = Mapping[str, Any]
DROPOUT = ("attention_dropout", "hidden_dropout", "resid_pdrop", "embd_pdrop")


@dataclass(frozen=True)
class BlockOptions:
    """The block in our terms.

    block  option of `block`: pre_norm, sandwich, reordered, parallel or parallel_shared
    norm   rms, layer, or layer without bias
    gated  whether the feed-forward has a gate
    head   scale, cap and bias of the logits
    """

    block: str
    norm: str
    gated: bool
    head: HeadRule


def read_block(family: Family, config: Config) -> BlockOptions:
    """The block of a layout that aptlab knows."""
    block = family.blocks[0]
    if len(family.blocks) > 1:
        parallel = bool(config.get("use_parallel_residual", False))
        block = next(name for name in family.blocks if name.startswith("parallel") == parallel)
    cap = config.get("final_logit_softcapping") if family.caps else None
    scale = config.get("logit_scale") if family.head == "scale" else None
    if family.scaled:
        scale = 1 / float(config["logits_scaling"])
    head = HeadRule(
        scale=1.0 if scale is None else float(scale),
        softcap=None if cap is None else float(cap),
        bias=family.head == "bias",
    )
    return BlockOptions(block=block, norm=family.norm, gated=family.gated, head=head)


def read_qk_norm(family: Family, config: Config) -> bool | QKNorm:
    """The norm on queries and keys; where a layout may have none, its key `qk_norm` chooses."""
    allowed = family.allowed_qk_norms
    chosen = allowed[0] if len(allowed) == 1 or not config.get("qk_norm") else allowed[1]
    return chosen is not None if chosen in (None, QKNorm()) else chosen


def read_logit_rule(family: Family, config: Config) -> LogitRule:
    """Scale and cap of attention; ConfigError for caps that a layout does not have."""
    if not family.caps:
        for key in ("attn_logit_softcapping", "final_logit_softcapping"):
            if config.get(key) is not None:
                raise ConfigError(
                    f"{key}={config[key]} cannot be imported with model_type={family.model_type}: released models of "
                    "this layout have no cap; Gemma 2 has"
                )
        return LogitRule(scale=float(config["attention_multiplier"]) if family.scaled else None)
    cap, scalar = config.get("attn_logit_softcapping"), float(config["query_pre_attn_scalar"])
    plain = scalar == config.get("head_dim")
    return LogitRule(scale=None if plain else 1 / math.sqrt(scalar), softcap=None if cap is None else float(cap))


def describe_dropout(config: Config) -> list[str]:
    """A line for the user on dropout of the training there, which weights do not carry."""
    rates = [f"{key}={config[key]:g}" for key in DROPOUT if config.get(key)]
    if not rates:
        return []
    return [
        f"{', '.join(rates)} in config.json is not taken over: here attention.dropout and ffn.dropout say what "
        "training drops"
    ]
