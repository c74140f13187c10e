"""The `rope_parameters` of a config.json as rotary rules."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from aptlab.errors import ConfigError, suggest_option
from aptlab.nn.positions.rope import Dynamic, Linear, Llama3, LongRoPE, Partial, Proportional, Rope, Standard, YaRN

KINDS = ("default", "linear", "dynamic", "yarn", "llama3", "longrope", "proportional")
OLDER = {"su": "longrope"}  # names in configs of the first releases
Given = Mapping[str, Any]


def read_rope_rule(config: Given) -> Rope:
    """The rule of a config.json, in today's form (`rope_parameters`) or the older (`rope_theta`, `rope_scaling`).

    Raises ConfigError naming the key for what no rule here computes.
    """
    return parse_rope_parameters(config.get("rope_parameters") or config.get("rope_scaling") or {}, config)


def parse_rope_parameters(given: Given, config: Given, *, base: float | None = None) -> Rope:
    """The rule of one set of parameters; `base` where neither they nor the config have one."""
    kind = str(given.get("rope_type", given.get("type", "default")))
    kind = OLDER.get(kind, kind)
    base = float(given.get("rope_theta") or base or config.get("rope_theta") or 10_000.0)
    if kind not in KINDS:
        raise ConfigError(
            f"rope_parameters.rope_type={kind} cannot be imported{suggest_option(kind, KINDS)}; aptlab reads "
            f"{', '.join(KINDS)}. Its weights need these frequencies: choose a model with one of them"
        )
    fraction = _fraction(given, config, kind)
    if kind == "proportional":
        return Proportional(base=base, fraction=fraction, factor=float(given.get("factor") or 1.0))
    if fraction != 1:
        if kind == "default":
            return Partial(base=base, fraction=fraction)
        whole = _longrope(given, base, config)
        return dataclasses.replace(whole, fraction=fraction, temperature_on="cos_sin")  # of the dims that turn alone
    return _of_whole_heads(kind, given, config, base)


def _of_whole_heads(kind: str, given: Given, config: Given, base: float) -> Rope:
    if kind == "default":
        return Standard(base=base)
    if kind == "linear":
        factor = read_number(given, "factor")
        return Linear(base=base, factor=factor, original_len=max(1, round(read_max_positions(config) / factor)))
    if kind == "dynamic":
        return Dynamic(base=base, factor=read_number(given, "factor"), original_len=read_max_positions(config))
    if kind == "yarn":
        return _yarn(given, base, config)
    if kind == "longrope":
        return _longrope(given, base, config)
    return Llama3(
        base=base,
        factor=read_number(given, "factor"),
        low=read_number(given, "low_freq_factor"),
        high=read_number(given, "high_freq_factor"),
        original_len=read_original_length(given, config),
    )


def _fraction(given: Given, config: Given, kind: str) -> float:
    """The part of a head that turns. Only Phi-3's layout turns a part alone; transformers' others do not ask."""
    value = given.get("partial_rotary_factor", config.get("partial_rotary_factor"))
    fraction = 1.0 if value is None else float(value)
    if fraction == 1 or kind == "proportional":
        return fraction
    if config.get("model_type") != "phi3":
        raise ConfigError(
            f"partial_rotary_factor={value} cannot be imported with model_type={config.get('model_type')}: its layout "
            "turns whole heads, and transformers either ignores the key or fails; repair the file"
        )
    if kind not in ("default", "longrope"):
        raise ConfigError(
            f"partial_rotary_factor={value} with rope_type={kind} cannot be imported: aptlab turns a part of each head "
            "by rope=partial or rope=longrope; choose a model with rope_type=default or longrope, or one that turns "
            "whole heads"
        )
    return fraction


def _yarn(given: Given, base: float, config: Given) -> YaRN:
    length = read_original_length(given, config)
    factor = float(given.get("factor") or read_max_positions(config) / length)
    rule = YaRN(
        base=base,
        factor=factor,
        original_len=length,
        beta_fast=float(given.get("beta_fast") or 32),
        beta_slow=float(given.get("beta_slow") or 1),
        truncate=bool(given.get("truncate", True)),
    )
    attention = given.get("attention_factor")
    if attention is None and given.get("mscale") and given.get("mscale_all_dim"):
        attention = _mscale(factor, given["mscale"]) / _mscale(factor, given["mscale_all_dim"])
    if attention is None or math.isclose(attention, math.sqrt(rule.temperature), rel_tol=1e-9):
        return rule
    return dataclasses.replace(rule, attention_factor=float(attention))


def _mscale(factor: float, mscale: float) -> float:
    return 0.1 * mscale * math.log(factor) + 1 if factor > 1 else 1.0


def _longrope(given: Given, base: float, config: Given) -> LongRoPE:
    length = read_original_length(given, config)
    lists = {}
    for name in ("short", "long"):
        values = given.get(f"{name}_factor")
        if not isinstance(values, list) or not all(isinstance(value, int | float) for value in values):
            raise ConfigError(
                f"rope_parameters.{name}_factor={values!r} in config.json is not a list of numbers; repair it"
            )
        lists[name] = tuple(float(value) for value in values)
    factor = max(1.0, float(given.get("factor") or read_max_positions(config) / length))
    rule = LongRoPE(base=base, factor=factor, original_len=length, **lists)
    attention = given.get("attention_factor")
    if attention is None or math.isclose(attention, math.sqrt(rule.temperature), rel_tol=1e-9):
        return rule
    return dataclasses.replace(rule, attention_factor=float(attention))


def describe_factor_mismatch(given: Given, config: Given) -> list[str]:
    """A line for the user where `factor` and the ratio of the lengths contradict each other.

    For yarn and longrope, where `factor` sets the temperature; Llama 3.1 itself has factor 8 and a ratio of 16.
    """
    kind, factor = given.get("rope_type", given.get("type")), given.get("factor")
    if kind not in ("yarn", "longrope") or factor is None:
        return []
    length, whole = read_original_length(given, config), read_max_positions(config)
    ratio = whole / length
    if whole == length or math.isclose(factor, ratio, rel_tol=0.01):
        return []
    return [
        f"warning: rope_parameters.factor={factor:g} and max_position_embeddings={whole} / "
        f"original_max_position_embeddings={length} = {ratio:g} contradict each other; the rope uses "
        f"factor={factor:g}, as transformers does"
    ]


def read_original_length(given: Given, config: Given) -> int:
    """The trained length; a key of the config itself goes first, as in Phi-3."""
    found = config.get("original_max_position_embeddings") or given.get("original_max_position_embeddings")
    return int(found or read_max_positions(config))


def read_max_positions(config: Given) -> int:
    return int(read_number(config, "max_position_embeddings"))


def read_number(given: Given, key: str) -> float:
    value = given.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{key}={value!r} in config.json is not a number, and the rope needs it; repair the file")
    return float(value)
