"""What a Hugging Face layout is: what it can hold, the names of its weights, its defaults, the models that have it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

NAMES = {
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attention.qkv": "self_attn.q_proj self_attn.k_proj self_attn.v_proj",
    "attention.out": "self_attn.o_proj",
    "attention.q_norm": "self_attn.q_norm",
    "attention.k_norm": "self_attn.k_norm",
    "ffn.gate_up": "mlp.gate_proj mlp.up_proj",
    "ffn.down": "mlp.down_proj",
}
FUSED = NAMES | {"attention.qkv": "self_attn.qkv_proj", "ffn.gate_up": "mlp.gate_up_proj"}
SANDWICH = NAMES | {
    "attention_smooth.norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "ffn_smooth.norm": "post_feedforward_layernorm",
}
FEED_FORWARD = NAMES | {
    "ffn.gate_up": "feed_forward.gate_proj feed_forward.up_proj",
    "ffn.down": "feed_forward.down_proj",
}


@dataclass(frozen=True, kw_only=True)
class Family:
    """One layout.

    biases     attention.bias that it can have
    windows    which layers may have a window: none, all alike, or any of them
    schedule   layers without rotation are possible
    chunked    blocks, growing queries and a norm after rotation are possible
    sandwich   branches are normalised before they join, norms are stored less one, embeddings are scaled
    partial    the first dims of a head may rotate alone
    expert     attention has sinks, and the feed-forward is one clamped, biased expert of a mixture
    layout     of rotary pairs
    names      of our matrices, separated by blanks where there are several
    defaults   of keys that a config.json may leave out, from transformers' configuration classes
    models     released models that have it, for the README
    """

    model_type: str
    architecture: str
    title: str
    biases: tuple[bool | str, ...] = (False,)
    qk_norm: bool = False
    ffn_bias: bool = False
    windows: str = "none"
    schedule: bool = False
    chunked: bool = False
    sandwich: bool = False
    partial: bool = False
    expert: bool = False
    layout: str = "half"
    names: Mapping[str, str] = field(default_factory=lambda: NAMES)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    models: str = ""
