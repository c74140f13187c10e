"""What a config.json says about attention: rotation, windows, biases, norms, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aptlab.errors import ConfigError
from aptlab.models.hf.defaults import fill_defaults
from aptlab.models.hf.family import FAMILIES, LLAMA4, QWEN2, SMOLLM3
from aptlab.models.hf.family_blocks import COHERE2
from aptlab.models.hf.layout import Family
from aptlab.models.hf.read_block import describe_dropout, read_logit_rule, read_qk_norm
from aptlab.models.hf.rope_from_hf import parse_rope_parameters
from aptlab.models.hf.rope_given import resolve_rope
from aptlab.models.hf.scalar_families import GRANITE4, HUNYUAN, MINISTRAL
from aptlab.models.hf.scalars import read_fixed_alpha, read_growing_queries, replace_temperature
from aptlab.models.layouts import replace_layout
from aptlab.nn.attention import LogitRule, QKNorm
from aptlab.nn.positions.rope import Growth, IRope, NoRope, PerLayer, Rope
from aptlab.nn.window import SlidingWindow

ALIASES = {"attention": "full_attention", "mamba": "linear_attention"}  # of older files
FULL, SLIDING, CHUNKED = "full_attention", "sliding_attention", "chunked_attention"
LINEAR = "linear_attention"  # what transformers calls recurrent layers
GROWTH = ("llama_4_scaling_beta", "max_position_embeddings")  # keys that Ministral 3 has in its rope
Config = Mapping[str, Any]


@dataclass(frozen=True)
class AttentionOptions:
    """Attention of a model in our terms: `rope`, and the options of `aptlab.nn.attention.FullAttention`.

    notes  lines for the user
    """

    rope: Rope
    bias: bool | str
    qk_norm: bool | QKNorm
    eps: float
    window: SlidingWindow | None
    sinks: bool
    logits: LogitRule = field(default_factory=LogitRule)
    notes: tuple[str, ...] = ()


def read_attention(config: Config) -> AttentionOptions:
    """Read the attention of a layout that aptlab knows; gpt-oss and Llama 4 may have experts.

    Raises ConfigError naming the key for what our attention does not compute.
    """
    kind = config.get("model_type")
    if kind not in FAMILIES:
        raise ConfigError(f"model_type={kind} cannot be imported; aptlab reads {', '.join(FAMILIES)}")
    family = FAMILIES[kind]
    filled = fill_defaults(config)
    if filled.get("use_bidirectional_attention"):
        raise ConfigError("use_bidirectional_attention=true cannot be imported: aptlab's attention is causal")
    logits = read_logit_rule(family, filled)
    config, key, told = resolve_rope(config)
    layers = read_layer_types(family, config)
    rope, notes = _rope(family, config, layers, key)
    return AttentionOptions(
        rope=rope,
        bias=_bias(family, config),
        qk_norm=read_qk_norm(family, config),
        eps=float(config["rms_norm_eps"]),
        window=infer_sliding_window(layers, config.get("sliding_window")),
        sinks=family.expert,
        logits=logits,
        notes=(*told, *notes, *describe_dropout(config)),
    )


def _bias(family: Family, config: Config) -> bool | str:
    """Which matrices of attention have a bias."""
    if len(family.biases) == 1:
        return family.biases[0]
    first = bool(config.get("attention_bias"))
    out = bool(config[family.out_bias]) if family.out_bias else first and True in family.biases
    if out and not first:
        raise ConfigError(
            f"{family.out_bias}=true with attention_bias=false cannot be imported: aptlab's attention.bias is of all "
            "four matrices, or of queries, keys and values alone; choose another model"
        )
    return out or ("qkv" if first else False)


def read_layer_types(family: Family, config: Config) -> list[str]:
    """full_attention, sliding_attention or chunked_attention of every layer, by each layout's own rules."""
    depth, window = int(config["num_hidden_layers"]), config.get("sliding_window")
    if family.windows == "all":
        return [SLIDING if window else FULL] * depth
    types = [ALIASES.get(kind, kind) for kind in map(str, config.get("layer_types") or ())]
    if family in (QWEN2, SMOLLM3) or family.model_type == "qwen3":
        if not config.get("use_sliding_window"):
            return [FULL] * depth
        first = _count(config, "max_window_layers")
        rotates = read_rotary_layers(config) if family is SMOLLM3 else [False] * depth  # there, layers without rotation
        types = types or [SLIDING if layer >= first and not rotates[layer] else FULL for layer in range(depth)]
    if not types and family in (MINISTRAL, GRANITE4):
        types = [(SLIDING if window else FULL) if family is MINISTRAL else LINEAR] * depth
    if not types:
        every = _count(config, "sliding_window_pattern")
        types = [SLIDING if every and (layer + 1) % every else FULL for layer in range(depth)]
        if family is LLAMA4:
            chunked = config.get("attention_chunk_size") is not None
            types = [CHUNKED if rotates and chunked else FULL for rotates in read_rotary_layers(config)]
        elif family.windows == "none":
            types = [FULL] * depth
    if len(types) != depth or set(types) - {FULL, SLIDING, CHUNKED}:
        raise ConfigError(
            f"layer_types={types} in config.json must be {depth} of {FULL}, {SLIDING}, {CHUNKED}; repair it, or choose "
            "a model with these kinds of layers"
        )
    if SLIDING in types and family.windows == "none":
        raise ConfigError(
            f"layer_types with {SLIDING} cannot be imported with model_type={family.model_type}: transformers has no "
            "window there; repair the file"
        )
    return list(types)


def _count(config: Config, key: str) -> int:
    """A number of layers, 0 where the key is absent; null is none."""
    value = config.get(key, 0)
    if value is None:
        raise ConfigError(f"{key}=None in config.json is not a whole number; repair the file, or leave the key out")
    return int(value)


def infer_sliding_window(layers: Sequence[str], window: int | None) -> SlidingWindow | None:
    """The setting that gives each layer its window: a cycle where there is one, else a list of layers."""
    limited = [kind == SLIDING for kind in layers]
    if not any(limited):
        return None
    if not window:
        raise ConfigError(f"sliding_window={window} in config.json with sliding layers; repair the file")
    for every in (None, *range(2, len(limited) + 1)):
        cycle = SlidingWindow(size=int(window), full_every=every)
        if limited == [cycle.for_layer(layer) is not None for layer in range(len(limited))]:
            return cycle
    full = tuple(layer for layer, local in enumerate(limited) if not local)
    return SlidingWindow(size=int(window), full_layers=full)


def read_rotary_layers(config: Config) -> list[bool]:
    """Which layers rotate, for layouts that say it by `no_rope_layers` (1 = rotates)."""
    depth, every = int(config["num_hidden_layers"]), int(config.get("no_rope_layer_interval") or 0)
    flags = config.get("no_rope_layers")
    if flags:
        if len(flags) != depth:
            raise ConfigError(f"no_rope_layers in config.json has {len(flags)} numbers, the model {depth} layers")
        return [bool(flag) for flag in flags]
    return [not every or bool((layer + 1) % every) for layer in range(depth)]


def _rope(family: Family, config: Config, layers: list[str], key: str) -> tuple[Rope, list[str]]:
    """The rule of a config whose rope is resolved; `key` is where it stood in the file."""
    parameters = config["rope_parameters"]
    if family.two_ropes:
        return _two_bases(config, layers)
    if family is HUNYUAN and (fixed := read_fixed_alpha(parameters, config)) is not None:
        return fixed
    if family is GRANITE4 and config.get("position_embedding_type") != "rope":
        return NoRope(), []
    rule, notes = parse_rope_parameters(parameters, config, key=key, known=GROWTH if family.growing else ())
    if family is HUNYUAN:  # its norm after the rotation undoes a factor on cosines and sines
        rule = replace_temperature(rule, "cos_sin")
    if family.growing:
        return read_growing_queries(parameters, rule), notes
    if family.layout == "interleaved":
        rule = replace_layout(rule, "interleaved")
    if not family.schedule:
        return rule, notes
    rotary_layers = [kind == SLIDING for kind in layers] if family is COHERE2 else read_rotary_layers(config)
    if family is LLAMA4:
        return _blocks(config, layers, rule, rotary_layers), notes
    if all(rotary_layers) or not any(rotary_layers):
        return (rule if all(rotary_layers) else NoRope()), notes
    every = _interval(rotary_layers)
    if every is not None:
        return IRope(inner=rule, interval=every, chunk=None, growth=None, qk_norm=False), notes
    return PerLayer(rules=tuple(rule if rotates else NoRope() for rotates in rotary_layers)), notes


def _two_bases(config: Config, layers: list[str]) -> tuple[Rope, list[str]]:
    """Gemma 3 and OLMo 3: one rule for sliding layers, one for full ones."""
    rules, notes = {}, []
    for kind in sorted(set(layers)):
        key = f"rope_parameters.{kind}"
        rules[kind], more = parse_rope_parameters(config["rope_parameters"][kind], config, key=key)
        notes += more
    if len(set(rules.values())) == 1:
        return rules[layers[0]], notes
    window = infer_sliding_window(layers, config.get("sliding_window"))
    cycle = window.full_every if window is not None else None
    return PerLayer(rules=tuple(rules[kind] for kind in layers[: cycle or len(layers)])), notes


def _blocks(config: Config, layers: list[str], rule: Rope, rotary_layers: list[bool]) -> IRope:
    """Llama 4: blocks and a norm in layers that rotate, growing queries in the others."""
    every = _interval(rotary_layers)
    if every is None or [kind == CHUNKED for kind in layers] not in (rotary_layers, [False] * len(rotary_layers)):
        raise ConfigError(
            f"no_rope_layers={[int(rotates) for rotates in rotary_layers]} with these layer_types cannot be imported: "
            "aptlab's rope=irope leaves every n-th layer without rotation and blocks"
        )
    growth = Growth(floor=int(config["floor_scale"]), scale=float(config["attn_scale"]))
    return IRope(
        inner=rule,
        interval=every,
        chunk=int(config["attention_chunk_size"]) if CHUNKED in layers else None,
        growth=growth if config["attn_temperature_tuning"] else None,
        qk_norm=bool(config["use_qk_norm"]),
    )


def _interval(rotary_layers: list[bool]) -> int | None:
    """n where exactly every n-th layer does not rotate; None where there is none."""
    for every in range(1, len(rotary_layers) + 2):
        if rotary_layers == [bool((layer + 1) % every) for layer in range(len(rotary_layers))]:
            return every
    return None
