"""Rotary rules as the `rope_parameters` of a config.json, and back.

YaRN's temperature is our factor on the logits; there it is `attention_factor`, on queries and keys each, its root.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from aptlab.errors import ConfigError
from aptlab.nn.rope import NTK, Linear, Llama3, NoRope, Rope, Standard, YaRN

KINDS = ("default", "linear", "yarn", "llama3")


def rope_parameters(rule: Rope, head_dim: int) -> tuple[dict[str, Any], str | None]:
    """A rule's `rope_parameters`, and a note for the user where the layout says it differently.

    Raises ConfigError for a rule that the layout cannot express.
    """
    if isinstance(rule, Standard):
        return {"rope_type": "default", "rope_theta": float(rule.base)}, None
    if isinstance(rule, Linear):
        return {"rope_type": "linear", "rope_theta": float(rule.base), "factor": float(rule.factor)}, None
    if isinstance(rule, NTK):
        scaled = rule.scaled_base(head_dim)
        note = f"rope=ntk is written as the default rope with its scaled base, rope_theta={scaled:.10g}"
        return {"rope_type": "default", "rope_theta": scaled}, note
    if isinstance(rule, YaRN):
        return _yarn(rule), None
    if isinstance(rule, Llama3):
        return _llama3(rule), None
    if isinstance(rule, NoRope):
        raise ConfigError(
            "rope=none cannot be exported to format=hf: a Llama rotates queries and keys in every layer; "
            "train with rope=standard, linear, ntk, yarn or llama3 to export"
        )
    raise ConfigError(
        f"rope={type(rule).__name__} cannot be exported to format=hf; "
        "the layout knows rope=standard, linear, ntk, yarn and llama3"
    )


def _yarn(rule: YaRN) -> dict[str, Any]:
    if rule.ramp != "index":
        raise ConfigError(
            f"rope.ramp={rule.ramp} cannot be exported to format=hf: transformers ramps over the pair index, and the "
            "weights were trained with other frequencies; train with rope.ramp=index to export"
        )
    return {
        "rope_type": "yarn",
        "rope_theta": float(rule.base),
        "factor": float(rule.factor),
        "original_max_position_embeddings": rule.original_len,
        "attention_factor": math.sqrt(rule.temperature),
        "beta_fast": float(rule.beta_fast),
        "beta_slow": float(rule.beta_slow),
        "truncate": rule.truncate,
    }


def _llama3(rule: Llama3) -> dict[str, Any]:
    return {
        "rope_type": "llama3",
        "rope_theta": float(rule.base),
        "factor": float(rule.factor),
        "original_max_position_embeddings": rule.original_len,
        "low_freq_factor": float(rule.low),
        "high_freq_factor": float(rule.high),
    }


def longest(rule: Rope, context: int) -> int:
    """Tokens that the rule stretches `context` to; for yarn and llama3 it is exactly original_len · factor."""
    if isinstance(rule, YaRN | Llama3):
        return max(round(rule.original_len * rule.factor), rule.original_len + 1)
    return round(context * rule.factor) if isinstance(rule, Linear | NTK) else context


def rope_rule(config: Mapping[str, Any]) -> Rope:
    """The rule of a config.json, in today's form (`rope_parameters`) or the older (`rope_theta`, `rope_scaling`).

    Raises ConfigError naming the key for what no rule here computes.
    """
    given = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = given.get("rope_type", given.get("type", "default"))
    base = float(given.get("rope_theta") or config.get("rope_theta") or 10_000.0)
    partial = given.get("partial_rotary_factor", config.get("partial_rotary_factor"))
    if partial not in (None, 1, 1.0):
        raise ConfigError(f"partial_rotary_factor={partial} cannot be imported: aptlab rotates whole heads (1.0)")
    if kind == "default":
        return Standard(base=base)
    if kind == "linear":
        return Linear(base=base, factor=_number(given, "factor"))
    if kind == "yarn":
        return _yarn_rule(given, base, config)
    if kind == "llama3":
        return Llama3(
            base=base,
            factor=_number(given, "factor"),
            low=_number(given, "low_freq_factor"),
            high=_number(given, "high_freq_factor"),
            original_len=_original(given, config),
        )
    raise ConfigError(
        f"rope_parameters.rope_type={kind} cannot be imported; aptlab reads {', '.join(KINDS)}. Its weights need "
        "these frequencies: choose a model with one of them"
    )


def _yarn_rule(given: Mapping[str, Any], base: float, config: Mapping[str, Any]) -> YaRN:
    original = _original(given, config)
    factor = given.get("factor") or config["max_position_embeddings"] / original
    rule = YaRN(
        base=base,
        factor=float(factor),
        original_len=original,
        beta_fast=float(given.get("beta_fast") or 32),
        beta_slow=float(given.get("beta_slow") or 1),
        truncate=bool(given.get("truncate", True)),
    )
    attention = given.get("attention_factor")
    if attention is None and given.get("mscale") and given.get("mscale_all_dim"):
        attention = _mscale(rule.factor, given["mscale"]) / _mscale(rule.factor, given["mscale_all_dim"])
    own = math.sqrt(rule.temperature)
    if attention is not None and not math.isclose(attention, own, rel_tol=1e-6):
        raise ConfigError(
            f"rope_parameters.attention_factor={attention} cannot be imported: rope=yarn has the paper's "
            f"0.1 ln(factor) + 1 = {own:.6g}, and the logits would differ"
        )
    return rule


def _mscale(factor: float, mscale: float) -> float:
    return 0.1 * mscale * math.log(factor) + 1


def _original(given: Mapping[str, Any], config: Mapping[str, Any]) -> int:
    found = config.get("original_max_position_embeddings") or given.get("original_max_position_embeddings")
    return int(found or _number(config, "max_position_embeddings"))


def _number(given: Mapping[str, Any], key: str) -> float:
    value = given.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{key}={value!r} in config.json is not a number, and the rope needs it; repair the file")
    return float(value)
