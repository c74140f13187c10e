"""The config.json of a decoder. What no layout can express is an error that names the config key."""

from __future__ import annotations

from typing import Any, NamedTuple

from aptlab.errors import ConfigError
from aptlab.models.decoder import INIT_STD, Decoder
from aptlab.models.hf.describe_block import describe_block, read_query_scalar
from aptlab.models.hf.describe_scalars import describe_scalars
from aptlab.models.hf.family import GEMMA3, GPT_OSS, LLAMA, LLAMA4, MISTRAL, PHI3, QWEN2, QWEN3, SMOLLM3
from aptlab.models.hf.family_blocks import BLOCKS
from aptlab.models.hf.layout import Family
from aptlab.models.hf.rope_given import NAMED
from aptlab.models.hf.rope_to_hf import build_rope_parameters
from aptlab.models.hf.scalar_families import SCALAR
from aptlab.models.hf.traits import Traits, choose_family, read_traits
from aptlab.nn.positions.rope import Frequencies, Rope, Standard
from aptlab.nn.positions.rotary import LearnedRotary

FULL, SLIDING, CHUNKED = "full_attention", "sliding_attention", "chunked_attention"
Rotation = tuple[dict[str, Any], list[str]]


class DecoderDescription(NamedTuple):
    """A decoder's config.json as a dict, notes for the user on what is written differently, and the layout.

    reach  tokens of a text that the model is made for, which max_position_embeddings is not for every rule
    """

    config: dict[str, Any]
    notes: list[str]
    family: Family
    reach: int


def describe_decoder(
    net: Decoder, *, context: int, eos: int | None = None, dtype: str = "float32", longest: int | None = None
) -> DecoderDescription:
    """The config.json of `net`, trained on `context` tokens; `longest` is its max_position_embeddings if it is known.

    The rope stands there twice, as `rope_parameters` for transformers 5 and as `rope_theta` with `rope_scaling` for
    readers of the older form. Raises ConfigError for what the layout cannot express.
    """
    found = read_traits(net)
    family = choose_family(found)
    rope, notes = _rope(net, family, found)
    reach = max([rule.stretched_length(context) for rule in found.rules], default=context)
    if (
        longest is None
    ):  # Gemma 3 counts the stretch in, others leave it to the reader where the type has no other place
        lengths = [rule.count_hf_positions(context) for rule in found.rules]
        longest = reach if family.two_ropes else max(lengths, default=context)
    config: dict[str, Any] = {
        "architectures": [family.architecture],
        "model_type": family.model_type,
        **_sizes(net),
        "hidden_activation" if family.sandwich else "hidden_act": found.act,
        "max_position_embeddings": longest,
        "initializer_range": INIT_STD,
        "rms_norm_eps": net.norm.eps,
        "tie_word_embeddings": net.tied,
        **rope,
        "attention_bias": bool(found.bias),
        "attention_dropout": 0.0,
        "use_cache": True,
        "bos_token_id": None,
        "eos_token_id": eos,
        "pad_token_id": None,
        "dtype": dtype,
    }
    config |= _only_here(family, found, config)
    return DecoderDescription(family.rename_keys(config), notes, family, max(reach, longest))


def _sizes(net: Decoder) -> dict[str, Any]:
    shape = net.shape
    if not isinstance(shape.hidden, int):
        raise ConfigError(
            f"size.hidden={list(shape.hidden)} cannot be exported to format=hf: every layout here has one "
            "intermediate_size for all layers; export one width for all blocks, or format=onnx"
        )
    return {
        "vocab_size": net.vocab,
        "hidden_size": shape.dim,
        "intermediate_size": shape.hidden,
        "num_hidden_layers": shape.depth,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
    }


def _only_here(family: Family, found: Traits, config: dict[str, Any]) -> dict[str, Any]:
    """Keys that one layout has, or that it reads in its own way."""
    window = next((size for size in found.windows if size is not None), None)
    rotary_layers = [int(layer.rule is not None) for layer in found.layers]
    kinds = [FULL if size is None else SLIDING for size in found.windows]
    if family is LLAMA:
        return {"mlp_bias": found.ffn_bias}
    if family is MISTRAL:
        return {"sliding_window": window}
    if family in (QWEN2, QWEN3):
        return {"use_sliding_window": window is not None, "sliding_window": window, "layer_types": kinds} | (
            {"max_window_layers": kinds.index(SLIDING) if window is not None else len(kinds)}
        )
    if family is SMOLLM3:
        windows = {"use_sliding_window": window is not None, "sliding_window": window, "layer_types": kinds}
        return windows | {"mlp_bias": found.ffn_bias, "no_rope_layers": rotary_layers, "no_rope_layer_interval": 0}
    if family is PHI3:
        original = config["rope_parameters"].get("original_max_position_embeddings", config["max_position_embeddings"])
        return {"sliding_window": window, "original_max_position_embeddings": original}
    if family is GEMMA3:
        # a window must stand there, used or not
        windows = {"layer_types": kinds, "sliding_window": window or config["max_position_embeddings"]}
        return windows | {"query_pre_attn_scalar": read_query_scalar(found)}
    if family is GPT_OSS:
        assert found.clamp is not None
        alpha, limit = found.clamp
        experts = {"num_local_experts": 1, "num_experts_per_tok": 1, "swiglu_alpha": alpha, "swiglu_limit": limit}
        return experts | {"layer_types": kinds, "sliding_window": window or config["max_position_embeddings"]}
    if family is LLAMA4:
        return _llama4(found, config, rotary_layers)
    assert family in (*BLOCKS, *SCALAR)
    windows = {"layer_types": kinds, "sliding_window": window or config["max_position_embeddings"]}
    own = describe_block(family, found, config) | describe_scalars(family, found, config)
    return own | (windows if family.windows == "any" else {})


def _llama4(found: Traits, config: dict[str, Any], rotary_layers: list[int]) -> dict[str, Any]:
    chunk = next((layer.chunk for layer in found.layers if layer.chunk is not None), None)
    growth = next((layer.growth for layer in found.layers if layer.growth is not None), None)
    values: dict[str, Any] = {
        "intermediate_size_mlp": config["intermediate_size"],
        "moe_layers": [],
        "no_rope_layers": rotary_layers,
        "attention_chunk_size": chunk or config["max_position_embeddings"],
        "layer_types": [CHUNKED if layer.chunk is not None else FULL for layer in found.layers],
        "use_qk_norm": any(layer.norm_after for layer in found.layers),
        "attn_temperature_tuning": growth is not None,
    }
    return values | ({} if growth is None else {"floor_scale": growth.floor, "attn_scale": growth.scale})


def _rope(net: Decoder, family: Family, found: Traits) -> Rotation:
    """rope_parameters, and the older keys beside them; notes."""
    if family.two_ropes:
        return _rope_by_kind(net, family, found)
    rules = found.rules or [Standard()]
    if len(rules) > 1:
        raise ConfigError(
            f"rope={type(net.rope).__name__} differs from layer to layer and cannot be exported to format=hf: only the "
            "layouts of Gemma 3 (block=sandwich with attention.qk_norm=true) and OLMo 3 (block=reordered) have two "
            "rules, for sliding and full layers; train with one rule for all layers to export"
        )
    rope, notes = _written(net, rules[0], family)
    if family is not PHI3 and rules[0].switches_by_length:
        notes.append(
            "transformers recomputes cached keys at the switch from short to long frequencies in the Phi-3 layout "
            f"only: as {family.title}, texts that cross rope.original_len while they are generated differ from a "
            "full pass"
        )
    return _older(rope), notes


def _rope_by_kind(net: Decoder, family: Family, found: Traits) -> Rotation:
    """Gemma 3 and OLMo 3: a rule for sliding layers and one for full layers."""
    parameters, notes = {}, []
    for kind, sliding in ((SLIDING, True), (FULL, False)):
        rules = {layer.rule for layer in found.layers if (layer.window is not None) == sliding}
        if len(rules) > 1:
            raise ConfigError(
                f"rope={type(net.rope).__name__} cannot be exported to format=hf: the {family.title} layout has one "
                "rule for sliding layers and one for full layers; let rope.rules change where attention.window does"
            )
        rule = rules.pop() if rules else found.rules[0]
        assert rule is not None
        parameters[kind], more = _written(net, rule, family, nested=True)
        notes += more
    far, near = parameters[FULL], parameters[SLIDING]
    older = _older(far) | {"rope_parameters": parameters}
    if family is GEMMA3:
        older |= {"rope_local_base_freq": near["rope_theta"]}
    return older, list(dict.fromkeys(notes))


def _written(net: Decoder, rule: Rope, family: Family, *, nested: bool = False) -> Rotation:
    learned = _learned(net, rule) if rule.learns_frequencies else None
    head_dim, types = net.shape.head_sizes()[2], NAMED.get(family.model_type, ())
    parameters, note = build_rope_parameters(rule, head_dim, learned=learned, nested=nested, types=types)
    return parameters, [note] if note else []


def _older(rope: dict[str, Any]) -> dict[str, Any]:
    scaling = {key: value for key, value in rope.items() if key != "rope_theta"}
    default = scaling == {"rope_type": "default"}
    return {
        "rope_parameters": rope,
        "rope_theta": rope["rope_theta"],
        "rope_scaling": None if default else scaling,
    }


def _learned(net: Decoder, rule: Rope) -> Frequencies:
    """The frequencies that a learned rotation has now."""
    modules = [rotary for rotary in net.rotaries if isinstance(rotary, LearnedRotary) and rotary.rule == rule]
    pace = modules[0].rule.pace  # type: ignore[attr-defined]
    shift = (pace * modules[0].weight.detach().double()).exp().tolist()
    return tuple(theta * factor for theta, factor in zip(modules[0].theta, shift, strict=True))
