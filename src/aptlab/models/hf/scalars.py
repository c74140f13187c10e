"""Numbers that some layouts have and Llama's has not: fixed factors, growing queries, a fixed stretch of the base.

Every function that reads takes a config that is completed by its family (`fill_defaults`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from aptlab.errors import ConfigError
from aptlab.models.hf.layout import Family
from aptlab.nn.positions.rope import GrowingQueries, Growth, Rope, Standard

Config = Mapping[str, Any]


class Multipliers(NamedTuple):
    """Fixed factors on the rows of the embedding, and on what every layer adds to the stream."""

    embedding: float = 1.0
    residual: float = 1.0


def read_multipliers(family: Family, config: Config) -> Multipliers:
    """Those of Granite; 1 elsewhere."""
    if not family.scaled:
        return Multipliers()
    return Multipliers(float(config["embedding_multiplier"]), float(config["residual_multiplier"]))


def read_growing_queries(parameters: Config, rule: Rope) -> GrowingQueries:
    """The rule with Ministral 3's growth; ConfigError naming the key that is missing, without which nothing runs."""
    values = {}
    for key in ("llama_4_scaling_beta", "original_max_position_embeddings"):
        values[key] = parameters.get(key)
        if isinstance(values[key], bool) or not isinstance(values[key], int | float):
            raise ConfigError(
                f"rope_parameters.{key}={values[key]!r} in config.json is not a number, and the queries of "
                "model_type=ministral3 grow by it; repair the file"
            )
    beta, length = values.values()
    return GrowingQueries(inner=rule, growth=Growth(floor=int(length), scale=float(beta), offset=0))


def read_fixed_alpha(parameters: Config, config: Config) -> tuple[Rope, list[str]] | None:
    """Hunyuan's `dynamic` with `alpha`, which is the standard rule with a larger base; None where there is no alpha.

    base' = base · alpha^(D/(D-2)), at every length (transformers' compute_ntk_alpha_rope_parameters).
    """
    if parameters.get("rope_type", parameters.get("type")) != "dynamic" or not parameters.get("alpha"):
        return None
    head_dim = config.get("head_dim") or int(config["hidden_size"]) // int(config["num_attention_heads"])
    base = float(parameters.get("rope_theta") or config.get("rope_theta") or 10_000.0)
    scaled = base * float(parameters["alpha"]) ** (head_dim / (head_dim - 2))
    note = f"rope_parameters.alpha={parameters['alpha']:g} is read as rope_theta={scaled:.10g}, which it means"
    return Standard(base=scaled), [note]


def replace_temperature(rule: Rope, where: str) -> Rope:
    """The same rule with its temperature elsewhere, "logits" or "cos_sin"; a rule that has none stays."""
    return rule if rule.temperature == 1 else dataclasses.replace(rule, temperature_on=where)  # type: ignore[type-var]


def list_multiplier_lacks(family: Family, found: Multipliers) -> list[tuple[bool, str, str]]:
    """(whether it is lacking, setting, way out) of fixed factors."""
    return [
        (found.embedding != 1 and not family.scaled, "model.embedding", "model=decoder"),
        (found.residual != 1 and not family.scaled, "smooth=residual_scale", "smooth=none"),
    ]


def list_growth_lacks(family: Family, growths: list[Growth | None], *, growing: bool) -> list[tuple[bool, str, str]]:
    """(whether it is lacking, setting, way out) of the growth of every layer: each layout has one law for all of them.

    Llama 4 counts positions from 1 and lets layers grow that do not rotate, Ministral 3 counts from 0. growing  whether
    queries of layers that rotate grow
    """
    offset = 0 if family.growing else 1
    different = {growth.offset for growth in growths if growth is not None} - {offset}
    wrong = next(iter(different), None)
    return [
        (growing and not family.growing, "rope=growing", "rope=yarn"),
        (bool(different), f"growth with offset={wrong}", f"offset={offset}"),
        (family.growing and None in growths, "growth in some layers", "rope=growing, which lets all of them grow"),
        (len({growth for growth in growths if growth}) > 1, "growth that differs from layer to layer", "one for all"),
    ]
