"""Weights that a layout stores in another form than one matrix a name, by the names of plain layers, and back.

fused_heads   GPT-NeoX: one matrix [H·3·D, C] with query, key and value of a head after each other, where plain layers
              have all queries, then all keys, then all values; `embed_out` in files, `lm_head` in memory
listed_norms  StableLM: a norm [D] a head, where plain layers have one weight [H, D]

Legend: H heads, D head dim, C width.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from aptlab.models.hf.layout import Family
from aptlab.nn.shape import Shape

FUSED = "attention.query_key_value."
BUFFERS = (".attention.bias", ".attention.masked_bias")  # causal masks in older files of GPT-NeoX
NORMS = (".q_layernorm.", ".k_layernorm.")


def read_stored(weights: Mapping[str, Tensor], family: Family, shape: Shape) -> dict[str, Tensor]:
    """Weights as a file has them -> as plain layers have them; what does not fit keeps its form and is told later."""
    if family.stored == "fused_heads":
        return _unfuse(weights, shape)
    return _stack(weights) if family.stored == "listed_norms" else dict(weights)


def write_stored(weights: Mapping[str, Tensor], family: Family, shape: Shape) -> dict[str, Tensor]:
    """The inverse of `read_stored`."""
    if family.stored == "fused_heads":
        return {name: _swap_heads(weight, 3, shape) if FUSED in name else weight for name, weight in weights.items()}
    return _unstack(weights) if family.stored == "listed_norms" else dict(weights)


def _unfuse(weights: Mapping[str, Tensor], shape: Shape) -> dict[str, Tensor]:
    out = {}
    for name, weight in weights.items():
        if name == "lm_head.weight":
            name = "embed_out.weight"
        if not name.endswith(BUFFERS):
            out[name] = _swap_heads(weight, shape.heads, shape) if FUSED in name else weight
    return out


def _swap_heads(weight: Tensor, first: int, shape: Shape) -> Tensor:
    """Rows [A·B·D] -> [B·A·D], A = `first`; the weight itself where its rows are not those of 3·H heads."""
    heads, _, head_dim = shape.head_sizes()
    if weight.shape[0] != 3 * heads * head_dim:
        return weight
    return weight.unflatten(0, (first, -1, head_dim)).transpose(0, 1).flatten(0, 2)


def _stack(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    out = {name: weight for name, weight in weights.items() if ".norms." not in name}
    listed: dict[str, list[tuple[int, Tensor]]] = {}
    for name in [name for name in weights if name not in out]:
        stem, _, rest = name.partition(".norms.")
        head, _, kind = rest.partition(".")
        if not head.isdigit():
            out[name] = weights[name]
            continue
        listed.setdefault(f"{stem}.{kind}", []).append((int(head), weights[name]))
    for name, heads in listed.items():
        out[name] = torch.stack([weight for _, weight in sorted(heads, key=lambda pair: pair[0])])
    return out


def _unstack(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    out: dict[str, Tensor] = {}
    for name, weight in weights.items():
        if not any(norm in name for norm in NORMS):
            out[name] = weight
            continue
        stem, _, kind = name.rpartition(".")
        out |= {f"{stem}.norms.{head}.{kind}": row for head, row in enumerate(weight)}
    return out
