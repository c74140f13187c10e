"""What a Hugging Face layout is: what it can hold, the names of its weights, its defaults, the models that have it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aptlab.nn.attention import QKNorm

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
    "attention_norm_after": "post_attention_layernorm",
    "attention_smooth.norm": "post_attention_layernorm",  # of smooth=post_norm, which computes the same
    "ffn_norm": "pre_feedforward_layernorm",
    "ffn_norm_after": "post_feedforward_layernorm",
    "ffn_smooth.norm": "post_feedforward_layernorm",
}
OUTER = {"embed": "model.embed_tokens", "layers": "model.layers", "norm": "model.norm", "head": "lm_head"}
FEED_FORWARD = NAMES | {
    "ffn.gate_up": "feed_forward.gate_proj feed_forward.up_proj",
    "ffn.down": "feed_forward.down_proj",
}


@dataclass(frozen=True, kw_only=True)
class Family:
    """One layout.

    biases     attention.bias that it can have, which `attention_bias` in a config.json chooses
    out_bias   key that chooses the bias of the output matrix apart
    ffn_bias   biases in the feed-forward are possible
    bias_key   key that chooses them
    scaled     embedding, logits of attention, branches and logits have fixed factors
    growing    queries of layers that rotate grow with their position
    windows    which layers may have a window: none, all alike, or any of them
    schedule   layers without rotation are possible
    chunked    blocks, growing queries and a norm after rotation are possible
    sandwich   branches are normalised before they join, norms are stored less one, embeddings are scaled
    blocks     options of `block` that it can have; the first where no key chooses
    norm       of the stream: rms, layer, or layer without bias
    gated      whether the feed-forward has a gate
    qk_norms   norms on queries and keys that it can have, where there is more to say than `qk_norm`
    caps       logits of attention and of the head may be capped, and those of attention scaled
    heads      what heads of attention must be: "" = anything, square = their dims make the width, single = and no
               head shares keys
    head       what the head has: scale, bias or nothing
    two_ropes  sliding layers and full ones have a rule each
    partial    the first dims of a head may rotate alone
    expert     attention has sinks, and the feed-forward is one clamped, biased expert of a mixture
    layout     of rotary pairs
    names      of our matrices, separated by blanks where there are several
    outer      names of embedding, layers, last norm and head
    stored     how weights differ from one matrix a name: fused_heads (GPT-NeoX) or listed_norms (StableLM)
    keys       names of keys in its config.json -> those of the same meaning in most others
    defaults   of keys that a config.json may leave out, from transformers' configuration classes
    models     released models that have it, for the README
    """

    model_type: str
    architecture: str
    title: str
    biases: tuple[bool | str, ...] = (False,)
    out_bias: str = ""
    qk_norm: bool = False
    ffn_bias: bool = False
    bias_key: str = "mlp_bias"
    scaled: bool = False
    growing: bool = False
    windows: str = "none"
    schedule: bool = False
    chunked: bool = False
    sandwich: bool = False
    blocks: tuple[str, ...] = ("pre_norm",)
    norm: str = "rms"
    gated: bool = True
    qk_norms: tuple[QKNorm | None, ...] = ()
    caps: bool = False
    heads: str = ""
    head: str = ""
    two_ropes: bool = False
    partial: bool = False
    expert: bool = False
    layout: str = "half"
    names: Mapping[str, str] = field(default_factory=lambda: NAMES)
    outer: Mapping[str, str] = field(default_factory=lambda: OUTER)
    stored: str = ""
    keys: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    models: str = ""

    @property
    def allowed_qk_norms(self) -> tuple[QKNorm | None, ...]:
        """The norms on queries and keys that it can have."""
        return self.qk_norms or ((QKNorm(),) if self.qk_norm else (None,))

    def rename_keys(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """A config.json as the layout has it: what we call otherwise under its own keys."""
        theirs = {ours: key for key, ours in self.keys.items()}
        return {theirs.get(key, key): value for key, value in config.items()}
