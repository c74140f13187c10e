"""The `rope_parameters` of a config.json as rotary rules: each rule says which `rope_type` it reads."""

from __future__ import annotations

import functools
import importlib
import math
import pkgutil
from collections.abc import Mapping
from typing import Any

from aptlab.errors import ConfigError, suggest_option
from aptlab.models.hf.family import FAMILIES
from aptlab.nn.positions import rope as room
from aptlab.nn.positions.rope import Rope
from aptlab.nn.positions.rope.hf import HFSource

PARTIAL = tuple(family.model_type for family in FAMILIES.values() if family.partial)
OLDER = {"su": "longrope"}  # names in configs of the first releases
Given = Mapping[str, Any]


@functools.cache
def list_hf_rules() -> tuple[type[Rope], ...]:
    """Every rule of `aptlab.nn.positions.rope` that a `rope_type` names, a new file's included, by that name."""
    modules = [
        importlib.import_module(f"{room.__name__}.{found.name}") for found in pkgutil.iter_modules(room.__path__)
    ]
    classes = [value for module in modules for value in vars(module).values() if isinstance(value, type)]
    rules = {rope_class for rope_class in classes if issubclass(rope_class, Rope) and rope_class.hf_type}
    return tuple(sorted(rules, key=lambda rule: (rule.hf_type, rule.hf_heads)))


def read_rope_rule(config: Given) -> Rope:
    """The rule of a config.json, in today's form (`rope_parameters`) or the older (`rope_theta`, `rope_scaling`).

    Raises ConfigError naming the key for what no rule here computes.
    """
    return parse_rope_parameters(config.get("rope_parameters") or config.get("rope_scaling") or {}, config)


def parse_rope_parameters(parameters: Given, config: Given, *, base: float | None = None) -> Rope:
    """The rule of one set of parameters; `base` where neither they nor the config have one.

    Raises ConfigError naming the key for what no rule here computes.
    """
    kind = str(parameters.get("rope_type", parameters.get("type", "default")))
    kind = OLDER.get(kind, kind)
    base = float(parameters.get("rope_theta") or base or config.get("rope_theta") or 10_000.0)
    readers = [rule for rule in list_hf_rules() if rule.hf_type == kind]
    if not readers:
        kinds = sorted({rule.hf_type for rule in list_hf_rules()})
        raise ConfigError(
            f"rope_parameters.rope_type={kind} cannot be imported{suggest_option(kind, kinds)}; aptlab reads "
            f"{', '.join(kinds)}. Its weights need these frequencies: choose a model with one of them"
        )
    value = parameters.get("partial_rotary_factor", config.get("partial_rotary_factor"))
    source = HFSource(parameters, config, base=base, fraction=1.0 if value is None else float(value))
    return _choose(readers, kind, source, value).from_hf(source)


def _choose(readers: list[type[Rope]], kind: str, source: HFSource, value: Any) -> type[Rope]:
    """The rule for the heads of a config: some layouts rotate a part of them, and others do not ask."""
    heads = "whole" if source.fraction == 1 else "part"
    if heads == "part" and source.config.get("model_type") not in PARTIAL and not _any(readers):
        raise ConfigError(
            f"partial_rotary_factor={value} cannot be imported with model_type={source.config.get('model_type')}: its "
            "layout rotates whole heads, and transformers either ignores the key or fails; repair the file"
        )
    chosen = [rule for rule in readers if heads in rule.hf_heads or "any" in rule.hf_heads]
    if not chosen:
        raise ConfigError(
            f"partial_rotary_factor={value} with rope_type={kind} cannot be imported: aptlab rotates a part of each "
            "head by rope=partial or rope=longrope; choose a model with rope_type=default or longrope, or one that "
            "rotates whole heads"
        )
    return chosen[0]


def _any(readers: list[type[Rope]]) -> bool:
    return any("any" in rule.hf_heads for rule in readers)


def describe_factor_mismatch(parameters: Given, config: Given) -> list[str]:
    """A line for the user where `factor` and the ratio of the lengths contradict each other.

    For yarn and longrope, where `factor` sets the temperature; Llama 3.1 itself has factor 8 and a ratio of 16.
    """
    kind, factor = parameters.get("rope_type", parameters.get("type")), parameters.get("factor")
    if kind not in ("yarn", "longrope") or factor is None:
        return []
    source = HFSource(parameters, config)
    length, whole = source.read_original_length(), source.read_max_positions()
    ratio = whole / length
    if whole == length or math.isclose(factor, ratio, rel_tol=0.01):
        return []
    return [
        f"warning: rope_parameters.factor={factor:g} and max_position_embeddings={whole} / "
        f"original_max_position_embeddings={length} = {ratio:g} contradict each other; the rope uses "
        f"factor={factor:g}, as transformers does"
    ]
