"""Hugging Face transformers: every rope type, in tiny random Llama and Llama 4 models.

Masks and positions are passed as `generate` and padding-free training do: an attention mask with positions counted
from it, or positions that restart and no mask. Legend: T tokens, D head dim.
"""

from __future__ import annotations

import copy
import importlib.metadata
import logging
import math
import tempfile
from collections.abc import Iterator
from typing import Any

import torch
from tiny import VOCAB, wake
from torch import Tensor

from aptlab.testing.invariance import SWITCH, NotOffered, Subject
from aptlab.testing.precision import compute_exact_scores

PROJECT = "transformers"
TYPES: dict[str, dict[str, Any]] = {
    "default": {},
    "linear": {"rope_type": "linear", "factor": 4.0},
    "dynamic": {"rope_type": "dynamic", "factor": 4.0},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": SWITCH},
    "longrope": {"rope_type": "longrope", "factor": 4.0, "original_max_position_embeddings": SWITCH},
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": SWITCH,
    },
    "proportional": {"rope_type": "proportional", "partial_rotary_factor": 0.5},
}
LLAMA4: dict[str, dict[str, Any]] = {
    "llama4": {"attn_temperature_tuning": False, "attention_chunk_size": 8192},
    "llama4 temperature": {"attn_temperature_tuning": True, "floor_scale": 8, "attention_chunk_size": 8192},
    "llama4 chunked": {"attn_temperature_tuning": False, "attention_chunk_size": 16},
}
GPT_OSS = {"rope_type": "yarn", "factor": 32.0, "rope_theta": 150_000.0, "truncate": False}
SIZES = {"vocab_size": VOCAB, "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}


def names() -> list[str]:
    """All rope types."""
    return [*TYPES, *LLAMA4]


def make(name: str, head_dim: int = 16) -> Subject:
    """The subject of one name."""
    logging.getLogger("transformers").setLevel(logging.ERROR)
    return HuggingFace(name, head_dim=head_dim)


class HuggingFace(Subject):
    """A causal language model of transformers."""

    project = PROJECT
    vocab = VOCAB

    def __init__(self, name: str, *, head_dim: int) -> None:
        self.name, self.head_dim = name, head_dim
        self.version = importlib.metadata.version(PROJECT)
        self.relative = {"llama4 temperature": False, "llama4 chunked": None}.get(name, True)
        self.net: Any = wake(llama4(name, head_dim) if name in LLAMA4 else llama(name, head_dim))

    def full(
        self,
        tokens_BT: Tensor,
        *,
        positions: Tensor | None = None,
        segments: Tensor | None = None,
        length: int | None = None,
    ) -> Tensor:
        net = copy.deepcopy(self.net)  # a forward pass may change frequencies that the next one starts from
        mask = None
        if segments is not None and int(segments.max()) == 1:
            mask = segments
        return net(tokens_BT, attention_mask=mask, position_ids=positions, use_cache=False).logits

    def cached(self, tokens_BT: Tensor, chunks: tuple[int, ...]) -> Tensor:
        from transformers import DynamicCache

        net = copy.deepcopy(self.net)
        cache, parts, begin = DynamicCache(config=net.config), [], 0
        for size in [chunks[0], *[chunks[-1]] * tokens_BT.shape[1]]:
            if begin >= tokens_BT.shape[1]:
                break
            parts.append(net(tokens_BT[:, begin : begin + size], past_key_values=cache, use_cache=True).logits)
            begin += size
        return torch.cat(parts, dim=1)

    def cast(self, dtype: torch.dtype) -> HuggingFace:
        other = copy.copy(self)
        other.net = copy.deepcopy(self.net).to(dtype)
        return other

    def scores(self, q_TD: Tensor, k_TD: Tensor, positions: Tensor) -> Tensor:
        rotary = copy.deepcopy(self.net.model.rotary_emb)
        places, scale = positions.unsqueeze(0), 1 / math.sqrt(self.head_dim)
        if self.name in LLAMA4:
            from transformers.models.llama4.modeling_llama4 import apply_rotary_emb

            q, k = (x.view(1, -1, 1, self.head_dim) for x in (q_TD, k_TD))
            rotated = apply_rotary_emb(q, k, rotary(q, places))
        else:
            from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

            q, k = (x.view(1, 1, -1, self.head_dim) for x in (q_TD, k_TD))
            rotated = apply_rotary_pos_emb(q, k, *rotary(q, places))
        q, k = (x.double().view(-1, self.head_dim) for x in rotated)
        return q @ k.mT * scale

    def exact(self, q_TD: Tensor, k_TD: Tensor, positions: Tensor) -> Tensor:
        rotary = copy.deepcopy(self.net.model.rotary_emb)
        rotary(q_TD.float(), positions.unsqueeze(0))  # lets rules that go by length choose
        layout = "interleaved" if self.name in LLAMA4 else "half"
        theta = rotary.inv_freq.double()
        return compute_exact_scores(q_TD, k_TD, positions, theta, layout=layout, factor=rotary.attention_scaling**2)

    def relaid(self) -> Subject:
        raise NotOffered("one layout per model; converters permute weights at import")


def llama(name: str, head_dim: int) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    rope = {"rope_type": "default", "rope_theta": 10_000.0} | TYPES[name]
    if name == "longrope":
        pairs = head_dim // 2
        rope |= {"short_factor": [1.0] * pairs, "long_factor": [1.0 + 3.0 * i / pairs for i in range(pairs)]}
    config = LlamaConfig(
        **SIZES,
        head_dim=head_dim,
        intermediate_size=96,
        num_hidden_layers=2,
        max_position_embeddings=SWITCH if name == "dynamic" else 4 * SWITCH,
        rope_parameters=rope,
    )
    return LlamaForCausalLM(config)


def llama4(name: str, head_dim: int) -> Any:
    from transformers import Llama4ForCausalLM, Llama4TextConfig

    config = Llama4TextConfig(
        **SIZES,
        head_dim=head_dim,
        intermediate_size=96,
        intermediate_size_mlp=96,
        num_hidden_layers=4,
        moe_layers=[],
        max_position_embeddings=4 * SWITCH,
        use_qk_norm=False,
        pad_token_id=0,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        **LLAMA4[name],
    )
    return Llama4ForCausalLM(config)


def claims() -> Iterator[tuple[str, str, bool]]:
    """(claim of positions.md 2.1, what was found, whether it reproduces) beside the laws."""
    flat, nested, rounded = (yarn_frequencies(GPT_OSS | extra, deep) for extra, deep in cases())
    off, same = ((nested - flat).abs() / flat).max().item(), (nested - rounded).abs().max().item()
    found = f"gpt-oss's settings: {off:.0%} off where it is nested, {same:.0e} off `truncate: true`"
    yield "4: a layer type's own `truncate: False` is ignored by yarn (up to 76 %)", found, off > 0.01
    from transformers.models.llama4.modeling_llama4 import Llama4ForCausalLM

    flash = bool(Llama4ForCausalLM._supports_flash_attn)
    yield "6: Llama 4 says that it does not support FlashAttention", f"_supports_flash_attn={flash}", not flash
    loaded, cast = (kept_frequencies(dtype) for dtype in (torch.bfloat16, None))
    found = f"frequencies are {loaded} after from_pretrained(dtype=bfloat16), {cast} after .to(bfloat16)"
    yield "section 6: safe to cast to bfloat16", found, loaded == cast == torch.float32


def kept_frequencies(dtype: torch.dtype | None) -> torch.dtype:
    """The dtype of a Llama's frequencies, loaded in `dtype`, or loaded in float32 and then cast to bfloat16."""
    from transformers import LlamaForCausalLM

    with tempfile.TemporaryDirectory() as folder:
        llama("default", 16).save_pretrained(folder)
        net = LlamaForCausalLM.from_pretrained(folder, dtype=dtype or torch.float32)
    net = net if dtype is not None else net.to(torch.bfloat16)
    return net.model.rotary_emb.inv_freq.dtype


def cases() -> tuple[tuple[dict[str, Any], bool], ...]:
    return ({}, False), ({}, True), ({"truncate": True}, False)


def yarn_frequencies(rope: dict[str, Any], nested: bool) -> Tensor:
    """transformers' own YaRN frequencies of a head of 64 dims, from a flat dict or one per layer type."""
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    rope = rope | {"original_max_position_embeddings": 4096}
    config = LlamaConfig(**SIZES, head_dim=64, max_position_embeddings=131_072, rope_parameters=dict(rope))
    if nested:
        config.layer_types = ["full_attention"]
        config.rope_parameters = {"full_attention": dict(rope)}
    layer_type = "full_attention" if nested else None
    return ROPE_INIT_FUNCTIONS["yarn"](config, torch.device("cpu"), layer_type=layer_type)[0].double()
