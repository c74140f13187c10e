"""The language model inside a model that also sees: its part of config.json, and its weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

INSIDE = "language_model."


class Wrapper(NamedTuple):
    """The layout of a `text_config` that names none, and whether the head is shared where the file does not say it."""

    model_type: str
    tied: bool


WRAPPERS = {
    "gemma3": Wrapper("gemma3_text", tied=True),
    "llava": Wrapper("llama", tied=False),
    "mistral3": Wrapper("mistral", tied=True),
}
SHARED = ("eos_token_id", "quantization_config")  # keys that stand outside and are the language model's too


def unwrap_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config.json of the language model alone; of a model that only reads, as it is."""
    text, wrapper = config.get("text_config"), WRAPPERS.get(str(config.get("model_type")))
    if wrapper is None or not isinstance(text, dict):
        return dict(config)
    outer = {key: config[key] for key in SHARED if key in config}
    tied = config.get("tie_word_embeddings", wrapper.tied or text.get("tie_word_embeddings", False))
    return {"model_type": wrapper.model_type} | outer | text | {"tie_word_embeddings": tied}


def unwrap_weights(weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Weights of the language model under the names that it has alone, and a line for the user on what is left out.

    The names of the older form begin with `language_model.model.`, those of transformers 5 with `model.language_model.`
    """
    renamed, left = {}, Counter[str]()
    for name, weight in weights.items():
        if f".{INSIDE}" in f".{name}":
            rest = name.partition(INSIDE)[2].removeprefix("model.")
            renamed["lm_head.weight" if rest == "lm_head.weight" else f"model.{rest}"] = weight
        elif name == "lm_head.weight":
            renamed[name] = weight
        else:
            left[name.removeprefix("model.").partition(".")[0]] += weight.numel()
    parts = ", ".join(f"{part} ({size:,} parameters)" for part, size in left.items())
    return renamed, (f"left out: {parts}; aptlab reads text alone",) if left else ()
