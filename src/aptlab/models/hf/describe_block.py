"""The keys of a config.json that layouts with another block have, under the names of most layouts."""

from __future__ import annotations

from typing import Any

from aptlab.errors import ConfigError
from aptlab.models.hf.family_blocks import GEMMA2, PHI
from aptlab.models.hf.layout import Family
from aptlab.models.hf.traits import Traits


def describe_block(family: Family, found: Traits, config: dict[str, Any]) -> dict[str, Any]:
    """What the layout says beside sizes, rotation and windows."""
    values: dict[str, Any] = {}
    if len(family.blocks) > 1:
        values["use_parallel_residual"] = found.around.block.startswith("parallel")
    if len(family.allowed_qk_norms) > 1:
        values["qk_norm"] = found.qk_norm
    if family is GEMMA2:
        values["query_pre_attn_scalar"] = read_query_scalar(found)
        values["attn_logit_softcapping"] = found.around.logits.softcap
        values["final_logit_softcapping"] = found.around.head.softcap
    if family.head == "scale" and not family.scaled:
        values["logit_scale"] = found.around.head.scale
    if family.partial:
        values["partial_rotary_factor"] = config["rope_parameters"].get("partial_rotary_factor", 1.0)
        config["rope_parameters"].setdefault("partial_rotary_factor", 1.0)
    if family is PHI and found.act == "gelu_pytorch_tanh":
        values["hidden_act"] = "gelu_new"
    return values


def read_query_scalar(found: Traits) -> int | float:
    """query_pre_attn_scalar, scale^-2; ConfigError for a scale that no whole number says."""
    scale = found.around.logits.scale
    if scale is None:
        return found.head_dim
    scalar = round(scale**-2)
    if scalar < 1 or abs(scalar * scale**2 - 1) > 1e-9:
        raise ConfigError(
            f"attention.logits.scale={scale} cannot be exported to format=hf: Gemma says it as 1 / sqrt(n) with a "
            f"whole number n; train with attention.logits.scale={max(scalar, 1) ** -0.5} to export"
        )
    return scalar
