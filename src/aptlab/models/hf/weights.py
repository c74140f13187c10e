"""Weights by Hugging Face names, and back. q, k, v and gate, up are single matrices here and apart there."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from aptlab.errors import CheckpointError
from aptlab.nn.shape import Shape

SAME = {
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attention.out": "self_attn.o_proj",
    "attention.q_norm": "self_attn.q_norm",
    "attention.k_norm": "self_attn.k_norm",
    "ffn.down": "mlp.down_proj",
}
IGNORED = ("rotary_emb.inv_freq",)  # tables that very old checkpoints carry


def joined(shape: Shape) -> dict[str, tuple[list[str], list[int]]]:
    """Our matrices that are several there: their names and rows."""
    query, key = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim  # type: ignore[operator]
    return {
        "attention.qkv": ([f"self_attn.{name}_proj" for name in "qkv"], [query, key, key]),
        "ffn.gate_up": (["mlp.gate_proj", "mlp.up_proj"], [shape.hidden, shape.hidden]),
    }


def to_hf(
    weights: Mapping[str, Tensor], shape: Shape, *, tied: bool, dtype: torch.dtype | None = None
) -> dict[str, Tensor]:
    """A decoder's state_dict under Hugging Face names; a tied head is left out, as there. `dtype` null keeps it."""
    named: dict[str, Tensor] = {"model.embed_tokens.weight": weights["embed.weight"]}
    named["model.norm.weight"] = weights["norm.weight"]
    if not tied:
        named["lm_head.weight"] = weights["head.weight"]
    for name, weight in weights.items():
        if name.startswith("blocks."):
            named |= _split(name, weight, shape)
    return {name: weight.detach().to("cpu", dtype).contiguous().clone() for name, weight in named.items()}


def _split(name: str, weight: Tensor, shape: Shape) -> dict[str, Tensor]:
    _, layer, rest = name.split(".", 2)
    part, kind = rest.rsplit(".", 1)
    if part in SAME:
        return {f"model.layers.{layer}.{SAME[part]}.{kind}": weight}
    theirs, rows = joined(shape)[part]
    return {f"model.layers.{layer}.{one}.{kind}": rows_of for one, rows_of in zip(theirs, weight.split(rows))}


def from_hf(
    weights: Mapping[str, Tensor], expected: Mapping[str, Tensor], shape: Shape, *, tied: bool
) -> dict[str, Tensor]:
    """A state_dict with the names and sizes of `expected` (our decoder's own), in float32.

    Raises CheckpointError that lists every weight which is missing, left over, or of another size.
    """
    left = {name: weight for name, weight in weights.items() if not name.endswith(IGNORED)}
    if tied:
        left.pop("lm_head.weight", None)
    found: dict[str, Tensor] = {}
    problems: list[str] = []
    for name, own in expected.items():
        theirs = _their_names(name, shape, tied)
        missing = [one for one in theirs if one not in weights]
        if missing:
            problems += [f"{one} is missing" for one in missing]
            continue
        parts = [weights[one] for one in theirs]
        for one in theirs:
            left.pop(one, None)
        size = [sum(part.shape[0] for part in parts), *parts[0].shape[1:]]
        if size != list(own.shape):
            problems.append(f"{' + '.join(theirs)} has sizes {size}, config.json says {list(own.shape)}")
            continue
        found[name] = torch.cat([part.to(torch.float32) for part in parts]) if len(parts) > 1 else parts[0].float()
    problems += [f"{name} has no place in this layout" for name in left]
    if problems:
        more = f"\n… and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise CheckpointError("the weights do not fit config.json:\n" + "\n".join(problems[:8]) + more)
    return found


def _their_names(name: str, shape: Shape, tied: bool) -> list[str]:
    outer = {"embed.weight": "model.embed_tokens.weight", "norm.weight": "model.norm.weight"}
    outer["head.weight"] = outer["embed.weight"] if tied else "lm_head.weight"
    if name in outer:
        return [outer[name]]
    _, layer, rest = name.split(".", 2)
    part, kind = rest.rsplit(".", 1)
    theirs = [SAME[part]] if part in SAME else joined(shape)[part][0]
    return [f"model.layers.{layer}.{one}.{kind}" for one in theirs]
