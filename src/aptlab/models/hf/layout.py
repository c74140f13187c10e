"""The config.json of a decoder. What the layout cannot express is an error that names the config key."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import nn

from aptlab.errors import ConfigError
from aptlab.models.decoder import INIT_STD, Decoder
from aptlab.models.hf.rope import longest, rope_parameters
from aptlab.nn.attention import FullAttention
from aptlab.nn.ffn import SwiGLU
from aptlab.nn.norm import RMSNorm
from aptlab.nn.smooth import Plain

LLAMA, QWEN3 = "LlamaForCausalLM", "Qwen3ForCausalLM"
MODEL_TYPES = {LLAMA: "llama", QWEN3: "qwen3"}


class Described(NamedTuple):
    """A decoder's config.json as a dict, and notes for the user on what is written differently."""

    config: dict[str, Any]
    notes: list[str]


def architecture(net: Decoder) -> str:
    """Qwen3ForCausalLM for a decoder with qk_norm, else LlamaForCausalLM; ConfigError if it is neither."""
    for block in net.blocks:
        _plain_block(block)
    if type(net.norm) is not RMSNorm:
        raise ConfigError(_refused("norm", net.norm, "norm=rms"))
    q_norm = net.blocks[0].attention.q_norm  # type: ignore[union-attr]
    if not isinstance(q_norm, RMSNorm):
        return LLAMA
    if net.blocks[0].ffn.gate_up.bias is not None:  # type: ignore[union-attr]
        raise ConfigError(
            "ffn.bias=true with attention.qk_norm=true cannot be exported to format=hf: the Qwen 3 layout has no "
            "feed-forward bias; train with ffn.bias=false or attention.qk_norm=false to export"
        )
    if q_norm.eps != net.norm.eps:
        raise ConfigError(
            f"norm.eps={net.norm.eps} differs from attention.qk_norm_eps={q_norm.eps}, and the Qwen 3 layout has one "
            "for both; train with equal ones to export to format=hf"
        )
    return QWEN3


def describe(net: Decoder, *, context: int, eos: int | None = None, dtype: str = "float32") -> Described:
    """The config.json of `net`, trained on `context` tokens.

    The rope stands there twice, as `rope_parameters` for transformers 5 and as `rope_theta` with `rope_scaling` for
    readers of the older form. Raises ConfigError for what the layout cannot express.
    """
    kind = architecture(net)
    rule = _one_rule(net)
    rope, note = rope_parameters(rule, net.shape.head_dim)  # type: ignore[arg-type]
    scaling = {key: value for key, value in rope.items() if key != "rope_theta"}
    attention, ffn = net.blocks[0].attention, net.blocks[0].ffn
    config: dict[str, Any] = {
        "architectures": [kind],
        "model_type": MODEL_TYPES[kind],
        **_sizes(net),
        "hidden_act": "silu",
        "max_position_embeddings": longest(rule, context),
        "initializer_range": INIT_STD,
        "rms_norm_eps": net.norm.eps,
        "tie_word_embeddings": net.tied,
        "rope_parameters": rope,
        "rope_theta": rope["rope_theta"],
        "rope_scaling": scaling if scaling["rope_type"] != "default" else None,
        "attention_bias": attention.qkv.bias is not None,  # type: ignore[union-attr]
        "attention_dropout": 0.0,
        "use_cache": True,
        "bos_token_id": None,
        "eos_token_id": eos,
        "pad_token_id": None,
        "dtype": dtype,
    }
    bias = ffn.gate_up.bias is not None  # type: ignore[union-attr]
    only_here = {"mlp_bias": bias} if kind == LLAMA else {"use_sliding_window": False}
    return Described(config | only_here, [note] if note else [])


def _sizes(net: Decoder) -> dict[str, Any]:
    shape = net.shape
    return {
        "vocab_size": net.vocab,
        "hidden_size": shape.dim,
        "intermediate_size": shape.hidden,
        "num_hidden_layers": shape.depth,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
    }


def _plain_block(block: nn.Module) -> None:
    """Raises ConfigError unless every part of the block is one that Llama or Qwen 3 has."""
    parts = (
        ("smooth", block.attention_smooth, Plain, "smooth=none"),
        ("smooth", block.ffn_smooth, Plain, "smooth=none"),
        ("attention", block.attention, FullAttention, "attention=full"),
        ("ffn", block.ffn, SwiGLU, "ffn=swiglu"),
        ("norm", block.attention_norm, RMSNorm, "norm=rms"),
        ("norm", block.ffn_norm, RMSNorm, "norm=rms"),
    )
    for group, part, wanted, way_out in parts:
        if type(part) is not wanted:
            raise ConfigError(_refused(group, part, way_out))


def _refused(group: str, part: object, way_out: str) -> str:
    return (
        f"{group}={type(part).__name__} cannot be exported to format=hf: no Hugging Face layout computes it; "
        f"train with {way_out} to export, or keep the checkpoint and use `aptlab generate` and `aptlab eval`"
    )


def _one_rule(net: Decoder) -> Any:
    """The rotary rule, if it is the same in all layers."""
    rules = {net.rope.at(layer).rule for layer in range(net.shape.depth)}
    if len(rules) > 1:
        raise ConfigError(
            f"rope={type(net.rope).__name__} differs from layer to layer and cannot be exported to format=hf; "
            "train with one rule for all layers to export"
        )
    return rules.pop() or net.rope
