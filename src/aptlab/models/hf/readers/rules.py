"""The rules of positions that a config.json can hold, as the table of readers names them. No torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

PLAIN_THETA = 10_000.0  # what readers take where they find none
ROWS = {  # by name, what stands in the config.json
    "standard": "rope_theta 10000",
    "theta": "another rope_theta, as rope=ntk is written",
    "linear": "linear",
    "dynamic": "dynamic",
    "yarn": "yarn with its defaults",
    "yarn betas": "yarn with beta_fast 16 and beta_slow 2",
    "yarn attention_factor": "yarn with attention_factor 1",
    "yarn truncate": "yarn with truncate false",
    "llama3": "llama3",
    "longrope": "longrope with two lists, in the Phi-3 layout",
    "divisors": "longrope with two equal lists in the Llama layout, as rope=ntk_by_parts is written",
    "proportional": "proportional",
    "partial": "partial_rotary_factor, in the Phi-3 layout",
    "per layer": "a rule for sliding and one for full layers, in the Gemma 3 layout",
    "irope": "every fourth layer without rotation, in the SmolLM 3 layout",
    "yarn in Qwen 2": "yarn with its defaults, in the Qwen 2 layout",
    "yarn in Qwen 3": "yarn with its defaults, in the Qwen 3 layout",
}
IN_LAYOUT = {"qwen2": "yarn in Qwen 2", "qwen3": "yarn in Qwen 3"}
MEASURED_AS = {"longrope": "phi3", "partial": "phi3", "per layer": "gemma3_text", "irope": "smollm3"}


def name_rules(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The rows of the table that a model's config.json stands for; several where it has several traits."""
    parameters = config["rope_parameters"]
    nested = [value for value in parameters.values() if isinstance(value, Mapping)]
    names = ["per layer"] if nested else []
    for each in nested or [parameters]:
        names += _name_parameters(each, config)
    if 0 in config.get("no_rope_layers", ()):
        names.append("irope")
    named = [name for name in dict.fromkeys(names) if name != "standard"]
    return tuple(named) or ("standard",)


def is_measured(rules: tuple[str, ...], config: Mapping[str, Any]) -> bool:
    """Whether one of the measured models had this layout and these rules."""
    layout = config["model_type"]
    home = {rule: MEASURED_AS.get(rule, "llama") for rule in rules} | {name: kind for kind, name in IN_LAYOUT.items()}
    return all(home[rule] == layout for rule in rules)


def list_measured_layouts(rules: tuple[str, ...]) -> list[str]:
    """The model_type of every layout in which these rules were measured."""
    own = {name: kind for kind, name in IN_LAYOUT.items()}
    return list(dict.fromkeys(own.get(rule) or MEASURED_AS.get(rule, "llama") for rule in rules))


def _name_parameters(parameters: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[str]:
    kind = parameters["rope_type"]
    if kind == "longrope":
        yield "divisors" if parameters["short_factor"] == parameters["long_factor"] else "longrope"
    elif kind == "yarn":
        yield IN_LAYOUT.get(config["model_type"], "yarn")
        yield from _name_yarn_options(parameters)
    elif kind != "default":
        yield kind
    elif parameters["rope_theta"] != PLAIN_THETA:
        yield "theta"
    if parameters.get("partial_rotary_factor", 1.0) != 1.0 and kind != "proportional":
        yield "partial"


def _name_yarn_options(parameters: Mapping[str, Any]) -> Iterator[str]:
    if (parameters.get("beta_fast", 32), parameters.get("beta_slow", 1)) != (32, 1):
        yield "yarn betas"
    usual = 0.1 * math.log(parameters["factor"]) + 1
    if not math.isclose(parameters.get("attention_factor") or usual, usual, rel_tol=1e-9):
        yield "yarn attention_factor"
    if not parameters.get("truncate", True):
        yield "yarn truncate"
