"""The `rope_parameters` of a config.json as rotary rules: each rule says which `rope_type` it reads."""

from __future__ import annotations

import functools
import importlib
import math
import pkgutil
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from aptlab.errors import ConfigError, suggest_option
from aptlab.models.hf.family import FAMILIES
from aptlab.models.hf.rope_given import NEW, PART, THETA, describe_value, resolve_rope
from aptlab.nn.positions import rope as room
from aptlab.nn.positions.rope import Rope
from aptlab.nn.positions.rope.hf import HFSource, read_number

PARTIAL = tuple(family.model_type for family in FAMILIES.values() if family.partial)
Given = Mapping[str, Any]
RESOLVED = ("rope_type", "type", "rope_theta", "partial_rotary_factor")  # read before a rule reads the rest


@functools.cache
def list_hf_rules() -> tuple[type[Rope], ...]:
    """Every rule of `aptlab.nn.positions.rope` that a `rope_type` names, a new file's included, by that name."""
    modules = [
        importlib.import_module(f"{room.__name__}.{found.name}") for found in pkgutil.iter_modules(room.__path__)
    ]
    classes = [value for module in modules for value in vars(module).values() if isinstance(value, type)]
    rules = {rope_class for rope_class in classes if issubclass(rope_class, Rope) and rope_class.hf_type}
    return tuple(sorted(rules, key=lambda rule: (rule.hf_type, rule.hf_heads)))


class ReadKeys(Mapping[str, Any]):
    """The parameters of a rope, which remember the keys that were asked for."""

    def __init__(self, values: Given) -> None:
        self.values_by_key = values
        self.asked: set[str] = set(RESOLVED)

    def __getitem__(self, key: str) -> Any:
        self.asked.add(key)
        return self.values_by_key[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.values_by_key)

    def __len__(self) -> int:
        return len(self.values_by_key)

    def list_unread(self) -> list[str]:
        """Keys with a value that nobody asked for."""
        return [key for key, value in self.values_by_key.items() if key not in self.asked and value is not None]


def read_rope_rule(config: Given) -> Rope:
    """The rule of a config.json, in today's form (`rope_parameters`), the older (`rope_theta`, `rope_scaling`) or both.

    Raises ConfigError naming the key for what no rule here computes.
    """
    config = resolve_rope(config).config
    return parse_rope_parameters(config[NEW], config)[0]


def parse_rope_parameters(
    parameters: Given, config: Given, *, key: str = NEW, known: Collection[str] = ()
) -> tuple[Rope, list[str]]:
    """The rule of one complete set of parameters, and lines for the user.

    key    where they stand in the file
    known  keys of them that the layout reads itself

    Raises ConfigError naming the key for what no rule here computes.
    """
    kind = str(parameters.get("rope_type", "default"))
    readers = [rule for rule in list_hf_rules() if rule.hf_type == kind]
    if not readers:
        kinds = sorted({rule.hf_type for rule in list_hf_rules()})
        raise ConfigError(
            f"{key}.rope_type={kind} cannot be imported{suggest_option(kind, kinds)}; aptlab reads "
            f"{', '.join(kinds)}. Its weights need these frequencies: choose a model with one of them"
        )
    read = ReadKeys(parameters)
    value = parameters.get(PART, config.get(PART))
    fraction = 1.0 if value is None else read_number({PART: value}, PART)
    source = HFSource(read, config, base=read_number(parameters, THETA), fraction=fraction)
    rule_class = _choose(readers, kind, source, value)
    try:
        rule = rule_class.from_hf(source)
    except ConfigError as error:
        raise error if "config.json" in str(error) else ConfigError(f"{key} in config.json: {error}") from None
    notes = [
        f"warning: {key}.{describe_value(name, parameters)} in config.json is not read with rope_type={kind}, as in "
        "transformers"
        for name in read.list_unread()
        if name not in known
    ]
    return rule, notes + describe_factor_mismatch(parameters, config, key=key)


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
            f"partial_rotary_factor={value} with rope_type={kind} cannot be imported: aptlab rotates whole heads by "
            "it; choose a model with another rope_type, or one that rotates whole heads"
        )
    return chosen[0]


def _any(readers: list[type[Rope]]) -> bool:
    return any("any" in rule.hf_heads for rule in readers)


def describe_factor_mismatch(parameters: Given, config: Given, *, key: str = NEW) -> list[str]:
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
        f"warning: {key}.factor={factor:g} and max_position_embeddings={whole} / "
        f"original_max_position_embeddings={length} = {ratio:g} contradict each other; the rope uses "
        f"factor={factor:g}, as transformers does"
    ]
