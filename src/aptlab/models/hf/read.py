"""A Hugging Face folder of the Llama or Qwen 3 layout, read into sizes, a rotary rule and weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from aptlab.errors import CheckpointError, ConfigError, DataError
from aptlab.models.hf.layout import MODEL_TYPES
from aptlab.models.hf.rope import rope_rule
from aptlab.nn.rope import Rope
from aptlab.nn.shape import Shape


@dataclass(frozen=True)
class Source:
    """What a folder holds.

    vocab, context  rows of the embedding; tokens the model was trained for, before any stretching
    eps             of every norm
    attention_bias, ffn_bias, qk_norm, tied  as in our config
    weights         by Hugging Face names, as stored
    tokenizer       text of tokenizer.json, None where there is none
    """

    shape: Shape
    rope: Rope
    vocab: int
    context: int
    eps: float
    attention_bias: bool
    ffn_bias: bool
    qk_norm: bool
    tied: bool
    weights: dict[str, Tensor]
    tokenizer: str | None
    eos: int | None


def read_folder(folder: str | Path) -> Source:
    """Read a folder; ConfigError for a model that our decoder does not compute, CheckpointError for a damaged one."""
    folder = Path(folder)
    config = _json(folder / "config.json")
    _computable(config)
    rope = rope_rule(config)
    shape = Shape(
        dim=_whole(config, "hidden_size"),
        depth=_whole(config, "num_hidden_layers"),
        heads=_whole(config, "num_attention_heads"),
        kv_heads=config.get("num_key_value_heads"),
        head_dim=config.get("head_dim") or (128 if config["model_type"] == "qwen3" else None),
        hidden=_whole(config, "intermediate_size"),
    )
    tokenizer = folder / "tokenizer.json"
    eos = config.get("eos_token_id")
    return Source(
        shape=shape,
        rope=rope,
        vocab=_whole(config, "vocab_size"),
        context=getattr(rope, "original_len", None) or round(_whole(config, "max_position_embeddings") / _factor(rope)),
        eps=float(config.get("rms_norm_eps", 1e-6)),
        attention_bias=bool(config.get("attention_bias", False)),
        ffn_bias=bool(config.get("mlp_bias", False)),
        qk_norm=config["model_type"] == "qwen3",
        tied=bool(config.get("tie_word_embeddings", False)),
        weights=read_weights(folder),
        tokenizer=tokenizer.read_text(encoding="utf-8") if tokenizer.is_file() else None,
        eos=next(iter(eos), None) if isinstance(eos, list) else eos,
    )


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of model.safetensors, or of the shards that model.safetensors.index.json lists."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    index = folder / "model.safetensors.index.json"
    names = sorted(set(_json(index)["weight_map"].values())) if index.is_file() else ["model.safetensors"]
    weights: dict[str, Tensor] = {}
    for name in names:
        path = folder / Path(name).name  # an index cannot point outside its folder
        if not path.is_file():
            raise CheckpointError(
                f"{path} is missing; aptlab reads safetensors only, convert other files with "
                "transformers' save_pretrained"
            )
        try:
            weights |= load_file(path)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path} cannot be read: {error}; download or copy it again") from error
    return weights


def _computable(config: Mapping[str, Any]) -> None:
    """Raises ConfigError for a setting that changes what the model computes and that our decoder does not have."""
    kinds = tuple(MODEL_TYPES.values())
    if config.get("model_type") not in kinds:
        raise ConfigError(f"model_type={config.get('model_type')} cannot be imported; aptlab reads {', '.join(kinds)}")
    if config.get("hidden_act", "silu") not in ("silu", "swish"):
        raise ConfigError(f"hidden_act={config['hidden_act']} cannot be imported; the layout's ffn=swiglu is silu")
    if config.get("use_sliding_window") or set(config.get("layer_types") or []) - {"full_attention"}:
        raise ConfigError("sliding-window layers cannot be imported; aptlab has attention=full")
    if config.get("quantization_config"):
        raise ConfigError("quantization_config: quantised weights cannot be imported; take the unquantised model")


def _factor(rope: Rope) -> float:
    return float(getattr(rope, "factor", 1.0))


def _whole(config: Mapping[str, Any], key: str) -> int:
    value = config.get(key)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"{key}={value!r} in config.json is not a whole number; repair the file")
    return value


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; path=… wants a folder saved by transformers' save_pretrained") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds a {type(value).__name__}, a JSON object is needed")
    return value
