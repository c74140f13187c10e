"""The forms of config.json that readers want: today's key, the older ones, Phi-3's three fields. No torch."""

from __future__ import annotations

import json
import math
from typing import Any

from aptlab.errors import ConfigError

Config = dict[str, Any]
OLDER = ("rope_theta", "rope_scaling", "rope_local_base_freq")


def name_special_tokens(settings: str, tokens: tuple[str, ...]) -> str:
    """A tokenizer_config.json in which each of `tokens` has a name: its own, else that of the end of a text."""
    values = json.loads(settings)
    named = {token: values.get(token) or values.get("eos_token") for token in tokens}
    return json.dumps(values | named, indent=2, ensure_ascii=False) + "\n"


def keep_newer_key(config: Config) -> Config:
    """`rope_parameters` alone: an older key beside it wins in transformers 5, whatever is edited here."""
    return {key: value for key, value in config.items() if key not in OLDER}


def keep_older_keys(config: Config) -> Config:
    """`rope_theta` and `rope_scaling` alone, the latter with `type` beside `rope_type`; `torch_dtype` for `dtype`.

    A part of each head that rotates stands at the top, where the older layouts look for it. Layers of two kinds keep
    their two bases.
    """
    older = {key: value for key, value in config.items() if key not in ("rope_parameters", "dtype")}
    older |= _split_older(config["rope_parameters"]) | {"torch_dtype": config["dtype"]}
    return older


def _split_older(parameters: Config) -> Config:
    """The older keys of one set of parameters, or of the two of Gemma 3."""
    if "full_attention" in parameters:
        near = parameters["sliding_attention"]
        if near["rope_type"] != "default":
            raise ConfigError(
                f"rope_parameters.sliding_attention.rope_type={near['rope_type']} has no place in the older keys: "
                "they have a base alone for sliding layers; export for=transformers5, or let rope.rules stretch full "
                "layers alone"
            )
        return _split_older(parameters["full_attention"]) | {"rope_local_base_freq": near["rope_theta"]}
    scaling = {key: value for key, value in parameters.items() if key != "rope_theta"}
    kind = scaling.pop("rope_type")
    part = None if kind == "proportional" else scaling.pop("partial_rotary_factor", None)
    keys: Config = {
        "rope_theta": parameters["rope_theta"],
        "rope_scaling": None if kind == "default" else {"rope_type": kind, "type": kind, **scaling},
    }
    return keys if part is None else keys | {"partial_rotary_factor": part}


def keep_phi3_fields(config: Config) -> Config:
    """The older keys, and Phi-3's `rope_scaling` with its three fields, which older readers of it insist on.

    Raises ConfigError for an attention factor that they do not compute themselves from the two lengths.
    """
    older, scaling = keep_older_keys(config), None
    if config["model_type"] == "phi3" and older["rope_scaling"] is not None:
        scaling = older["rope_scaling"]
        check_su_factor(older, scaling)
        older["rope_scaling"] = {key: scaling[key] for key in ("type", "short_factor", "long_factor")}
    return older


def check_su_factor(config: Config, scaling: Config) -> None:
    """Raises ConfigError unless attention_factor is sqrt(1 + ln s / ln L), s = longest / original (Phi-3's code)."""
    original = config["original_max_position_embeddings"]
    ratio = config["max_position_embeddings"] / original
    computed = math.sqrt(1 + math.log(ratio) / math.log(original)) if ratio > 1 else 1.0
    given = scaling.get("attention_factor") or computed
    if not math.isclose(given, computed, rel_tol=1e-6):
        raise ConfigError(
            f"attention_factor={given:.6g} cannot be said to this reader: it computes {computed:.6g} from "
            f"max_position_embeddings={config['max_position_embeddings']} and original_max_position_embeddings="
            f"{original}; train with rope.attention_factor=null, or export for=transformers5"
        )
