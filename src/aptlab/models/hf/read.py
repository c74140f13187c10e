"""A Hugging Face folder, read into sizes, attention and weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aptlab.bounded import TABLE, parse_json, read_bounded_text
from aptlab.errors import CheckpointError, ConfigError, DataError
from aptlab.models.hf.attention import AttentionOptions, read_attention
from aptlab.models.hf.defaults import describe_defaults, fill_defaults
from aptlab.models.hf.experts import find_experts
from aptlab.models.hf.family import FAMILIES, GEMMA3, LLAMA4
from aptlab.models.hf.headers import INDEX, WEIGHTS, StoredSizes, read_places, read_stored_sizes, require_weights
from aptlab.models.hf.kinds import check_kinds, name_config
from aptlab.models.hf.layout import Family
from aptlab.models.hf.read_block import BlockOptions, read_block
from aptlab.models.hf.scalars import Multipliers, read_multipliers
from aptlab.models.hf.wrapped import unwrap_config, unwrap_weights
from aptlab.models.layouts import replace_layout
from aptlab.nn.positions.rope import Rope
from aptlab.nn.positions.rope.hf import read_length
from aptlab.nn.shape import Shape

TANH = "gelu_pytorch_tanh"  # gelu_new and gelu_fast are the same function
ACTS = {"silu": "silu", "swish": "silu", "gelu": "gelu", TANH: TANH, "gelu_new": TANH, "gelu_fast": TANH}


@dataclass(frozen=True)
class HFModel:
    """What a folder holds.

    family          its layout
    vocab, context  rows of the embedding; tokens the model was trained for, before any stretching
    attention       rope and the options of attention
    act             gate of the feed-forward: silu, gelu or gelu_pytorch_tanh
    clamp           alpha and limit of a gate that is clamped, which is no silu whatever `act` says
    scalar          query_pre_attn_scalar of Gemma 3, 1 / (factor on the logits)²; the head dim elsewhere
    block           what stands around the layers, and what the head has
    multipliers     fixed factors on embedding and branches
    weights         by Hugging Face names, as stored
    tokenizer       text of tokenizer.json, None where there is none
    longest         max_position_embeddings as it stands there
    file            where the weights stand, or the list of the files that hold them
    notes           lines for the user
    """

    family: Family
    shape: Shape
    vocab: int
    context: int
    attention: AttentionOptions
    act: str
    clamp: tuple[float, float] | None
    ffn_bias: bool
    tied: bool
    scalar: float
    weights: dict[str, Tensor]
    tokenizer: str | None
    eos: int | None
    block: BlockOptions
    multipliers: Multipliers
    longest: int
    file: str = WEIGHTS
    notes: tuple[str, ...] = ()

    @property
    def rope(self) -> Rope:
        return self.attention.rope

    @property
    def eps(self) -> float:
        return self.attention.eps


def read_folder(folder: str | Path, *, layout: str | None = None) -> HFModel:
    """Read a folder, its rotary pairs in the layout half or interleaved; None = as the folder has them.

    Raises ConfigError for a model that our decoder does not compute, CheckpointError for a damaged one.
    """
    folder = Path(folder)
    with name_config(folder / "config.json"):
        whole = _json(folder / "config.json")
        config = unwrap_config(whole)
        _computable(config)
        check_kinds(config)
    places = read_places(folder)
    stored = read_stored_sizes(folder, places) if places or (folder / WEIGHTS).is_file() else None
    with name_config(folder / "config.json"):
        model = read_config(config, stored)
        if layout is not None:
            rope = replace_layout(model.rope, layout)
            model = dataclasses.replace(model, attention=dataclasses.replace(model.attention, rope=rope))
    weights, file, left_out = *read_weights(folder, places), ()
    if "text_config" in whole:
        weights, left_out = unwrap_weights(weights)
    tied, head = share_head(weights, model.family, model.tied)
    return dataclasses.replace(
        model,
        tied=tied,
        weights=weights,
        tokenizer=read_tokenizer_text(folder / "tokenizer.json"),
        file=file,
        notes=(*model.notes, *head, *left_out),
    )


def read_config(given: Mapping[str, Any], stored: StoredSizes | None = None) -> HFModel:
    """What a config.json says, without weights and tokenizer, compared with the sizes that are stored beside it."""
    family, config = _computable(given), fill_defaults(given)
    if stored is not None:
        check_stored(stored, config, family)
    attention, shape, eos = read_attention(given), _shape(given, config, family), config.get("eos_token_id")
    longest = read_length(config, "max_position_embeddings")
    return HFModel(
        family=family,
        shape=shape,
        vocab=_whole(config, "vocab_size"),
        context=_context(attention.rope, shape.depth, longest),
        attention=attention,
        act=read_activation(family, config),
        clamp=(float(config["swiglu_alpha"]), float(config["swiglu_limit"])) if family.expert else None,
        ffn_bias=family.expert or (family.ffn_bias and bool(config.get(family.bias_key, False))),
        tied=bool(config.get("tie_word_embeddings", False)),
        scalar=float(config["query_pre_attn_scalar"] if family is GEMMA3 else shape.head_sizes()[2]),
        block=read_block(family, config),
        multipliers=read_multipliers(family, config),
        weights={},
        tokenizer=None,
        eos=next(iter(eos), None) if isinstance(eos, list) else eos,
        longest=longest,
        notes=(*describe_defaults(given), *attention.notes),
    )


def read_tokenizer_text(path: Path) -> str | None:
    """The text of tokenizer.json, None where there is none; DataError for one that cannot be read."""
    if not path.is_file():
        return None
    try:
        return read_bounded_text(path, TABLE)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}; copy it again") from None


def check_stored(stored: StoredSizes, config: Mapping[str, Any], family: Family) -> None:
    """ConfigError where the sizes of a config are not those of the weights beside it, before either is loaded."""
    inner = "intermediate_size_mlp" if family is LLAMA4 else "intermediate_size"
    names = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", inner)
    sizes = {key: _whole(config, key) for key in names}
    vocab, dim, depth, heads, hidden = sizes.values()
    head_dim = config.get("head_dim") or dim // heads
    kv_heads = heads if family.heads == "single" else config.get("num_key_value_heads") or heads
    layer = dim * head_dim * 2 * (heads + kv_heads) + (3 if family.gated else 2) * dim * hidden
    stored.check_model(sizes, vocab * dim + depth * layer, depth="num_hidden_layers", source="config.json")


def _shape(given: Mapping[str, Any], config: Mapping[str, Any], family: Family) -> Shape:
    """Sizes of a config with its defaults; `given` is the file, whose key is named where a default does not fit."""
    heads, optional = _whole(config, "num_attention_heads"), ("num_key_value_heads", "head_dim")
    if family.heads == "single":
        optional = ("", "head_dim")
    kv_heads, head_dim = (None if config.get(key) is None else _whole(config, key) for key in optional)
    if kv_heads and heads % kv_heads and "num_key_value_heads" not in given:
        raise ConfigError(
            f"config.json leaves out num_key_value_heads, and transformers' {kv_heads} for model_type="
            f"{family.model_type} does not divide num_attention_heads={heads}; write it there: the rows of a k_proj "
            "weight / head_dim"
        )
    return Shape(
        dim=_whole(config, "hidden_size"),
        depth=_whole(config, "num_hidden_layers"),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        hidden=_whole(config, "intermediate_size_mlp" if family is LLAMA4 else "intermediate_size"),
    )


def read_weights(folder: Path, places: Mapping[str, str]) -> tuple[dict[str, Tensor], str]:
    """All tensors of model.safetensors, or of the shards that an index's table lists, and the name of that file.

    Raises CheckpointError for a file or tensor that is missing, by name.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    weights: dict[str, Tensor] = {}
    for name in sorted(set(places.values())) or [WEIGHTS]:
        path = require_weights(folder / name)
        try:
            found = load_file(path)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path} cannot be read: {error}; download or copy it again") from error
        lost = [key for key, place in places.items() if place == name and key not in found]
        if lost:
            raise CheckpointError(f"{path} lacks {lost[0]}, which {INDEX} places there; download or copy it again")
        weights |= found
    return weights, INDEX if places else WEIGHTS


def share_head(weights: dict[str, Tensor], family: Family, tied: bool) -> tuple[bool, list[str]]:
    """Whether embedding and head are one, as transformers 5 decides by what is stored, and lines for the user.

    A head that is stored and differs is kept for itself; one that stands alone is the embedding too.
    """
    names = [f"{family.outer[part]}.weight" for part in ("embed", "head")]
    embed, head = (weights.get(name) for name in names)
    if not tied or head is None:
        return tied, []
    if embed is None:
        weights[names[0]] = head
        return True, [f"{names[0]} is not stored: {names[1]}, which tie_word_embeddings=true makes the same, is taken"]
    if embed.shape == head.shape and torch.equal(embed, head):
        return True, []
    return False, [
        f"warning: tie_word_embeddings=true in config.json, and {names[1]} is stored with other values than {names[0]}"
        ": both are kept, as in transformers 5 (transformers 4 drops the head); model.tied=false"
    ]


def _computable(config: Mapping[str, Any]) -> Family:
    """The layout; ConfigError for a setting that changes what the model computes and that our decoder does not have."""
    kind = str(config.get("model_type"))
    experts = find_experts(config)
    if experts is not None and kind not in FAMILIES:
        raise ConfigError(
            f"model_type={kind} cannot be imported: its feed-forward layers are a mixture of experts ({experts}), "
            f"which aptlab does not have yet; it reads {', '.join(FAMILIES)}"
        )
    if kind not in FAMILIES:
        raise ConfigError(f"model_type={kind} cannot be imported; aptlab reads {', '.join(FAMILIES)}")
    if kind == LLAMA4.model_type and config.get("moe_layers") != []:
        raise ConfigError(
            "model_type=llama4_text with moe_layers other than [] cannot be imported: aptlab has no mixture of experts "
            "yet; aptlab.models.hf.read_attention(config) reads its attention"
        )
    count, plain = fill_defaults(config).get("num_local_experts"), int(FAMILIES[kind].expert)
    if "num_local_experts" in FAMILIES[kind].defaults and count != plain:
        raise ConfigError(
            f"model_type={kind} with num_local_experts={count} cannot be imported: aptlab has no mixture of experts "
            f"yet, and reads this layout with {plain}; aptlab.models.hf.read_attention(config) reads its attention"
        )
    if config.get("quantization_config"):
        raise ConfigError("quantization_config: quantised weights cannot be imported; take the unquantised model")
    return FAMILIES[kind]


def read_activation(family: Family, config: Mapping[str, Any]) -> str:
    """silu, gelu or gelu_pytorch_tanh; ConfigError for another one, or one that no feed-forward of this form has."""
    key = "hidden_activation" if "hidden_activation" in config else "hidden_act"
    value = config.get(key) or "silu"
    if value not in ACTS:
        raise ConfigError(
            f"{key}={value} cannot be imported; ffn=swiglu is silu, ffn=geglu is gelu or gelu_pytorch_tanh"
        )
    if not family.gated and ACTS[value] == "silu":
        raise ConfigError(f"{key}={value} cannot be imported with model_type={family.model_type}; ffn=gelu is gelu")
    return ACTS[value]


def _context(rope: Rope, depth: int, longest: int) -> int:
    """Tokens before stretching, by the rule that stretches most."""
    rules = [rope.for_layer(layer).rule for layer in range(depth)]
    return min(rule.scaling.original_len if rule and rule.scaling else longest for rule in rules)


def _whole(config: Mapping[str, Any], key: str) -> int:
    value = config.get(key)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"{key}={value!r} in config.json is not a whole number; repair the file")
    return value


def _json(path: Path) -> dict[str, Any]:
    try:
        value = parse_json(read_bounded_text(path))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; path=… wants a folder saved by transformers' save_pretrained") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}; copy it again") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds a {type(value).__name__}, a JSON object is needed")
    return value
