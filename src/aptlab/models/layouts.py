"""From one layout of rotary pairs to the other: a permutation of the rows that make queries and keys.

Legend: H heads, D head dim, P pairs that rotate (2P <= D). Layout "half" pairs dims (i, i + P), "interleaved"
(2i, 2i + 1) (`aptlab.nn.positions.rope.Rotation`). A head's logits do not change when the dims of queries and keys
are permuted alike, so a model whose rows were permuted and whose rule names the other layout is the same model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from aptlab.errors import ConfigError
from aptlab.limits import PositiveInt
from aptlab.nn.positions.rope import NoRope, Rope
from aptlab.nn.shape import Shape

LAYOUTS = ("half", "interleaved")


def convert_qk_weights(
    weight: Tensor,
    heads: PositiveInt,
    head_dim: PositiveInt,
    *,
    source: str = "half",
    target: str = "interleaved",
    rotary_dims: int | None = None,
) -> Tensor:
    """The rows of a query or key projection in another layout; swapping source and target undoes it exactly.

    weight       [H·D, ...] of a projection or its bias; [D] of a norm over heads' dims, with heads=1
    rotary_dims  2P where only the first dims of a head rotate; None = all

    Raises ConfigError for sizes that do not fit and layouts that do not exist.
    """
    if weight.shape[0] != heads * head_dim:
        raise ConfigError(
            f"{weight.shape[0]} rows are not heads={heads} times head_dim={head_dim}; give the rows of queries or of "
            "keys alone, and heads=1 for the weight of a norm"
        )
    order = compute_layout_order(head_dim, source=source, target=target, rotary_dims=rotary_dims)
    return weight.unflatten(0, (heads, head_dim))[:, order].flatten(0, 1)


def compute_layout_order(head_dim: int, *, source: str, target: str, rotary_dims: int | None = None) -> list[int]:
    """For every dim of a head in `target`, its index in `source`."""
    rotary = head_dim if rotary_dims is None else rotary_dims
    if rotary % 2 or not 0 <= rotary <= head_dim:
        raise ConfigError(f"rotary_dims={rotary_dims} is not an even number in [0, head_dim={head_dim}]")
    at = {layout: _places(rotary // 2, layout) for layout in (source, target)}
    order = list(range(head_dim))
    for here, there in zip(at[target], at[source], strict=True):
        order[here] = there
    return order


def _places(pairs: int, layout: str) -> list[int]:
    """Where (first of pair 0, second of pair 0, first of pair 1, ...) stand in a head."""
    if layout not in LAYOUTS:
        raise ConfigError(f"layout={layout!r}; allowed: {', '.join(LAYOUTS)}")
    if layout == "interleaved":
        return list(range(2 * pairs))
    return [dim for pair in range(pairs) for dim in (pair, pair + pairs)]


def convert_layout(weights: Mapping[str, Tensor], shape: Shape, rope: Rope, *, target: str) -> dict[str, Tensor]:
    """A decoder's state dict for the rule `with_layout(rope, target)`; layers without rotation stay."""
    heads, kv_heads, head_dim = shape.head_sizes()
    out = dict(weights)
    for layer in range(shape.depth):
        rule = rope.for_layer(layer).rule
        if rule is None or rule.layout == target:
            continue
        order = compute_layout_order(
            head_dim, source=rule.layout, target=target, rotary_dims=2 * len(rule.inv_freq(head_dim))
        )
        stem = f"blocks.{layer}.attention."
        names = [name for name in out if name.startswith(stem)]  # of an attention, or of one inside another
        for name in (name for name in names if name.endswith(("qkv.weight", "qkv.bias"))):
            _reorder(out, name, heads + kv_heads, order)
        for name in (name for name in names if ".q_norm." in name or ".k_norm." in name):
            out[name] = out[name].reshape(-1, head_dim)[:, order].view_as(out[name])  # of one head, or of all
    return out


def _reorder(weights: dict[str, Tensor], name: str, heads: int, order: list[int]) -> None:
    """Permute the dims of the first `heads` heads of a weight."""
    rotary, rest = weights[name].tensor_split([heads * len(order)])
    weights[name] = torch.cat((rotary.unflatten(0, (heads, -1))[:, order].flatten(0, 1), rest))


def replace_layout(rope: Rope, target: str) -> Rope:
    """The same rule, and the rules inside it, with pairs in another layout."""
    if target not in LAYOUTS:
        raise ConfigError(f"layout={target!r}; allowed: {', '.join(LAYOUTS)}")
    changed: dict[str, Any] = {}
    for field in dataclasses.fields(rope):  # type: ignore[arg-type]
        value = getattr(rope, field.name)
        if field.name == "layout":
            changed["layout"] = target
        elif isinstance(value, Rope):
            changed[field.name] = replace_layout(value, target)
        elif isinstance(value, tuple) and any(isinstance(item, Rope) for item in value):
            changed[field.name] = tuple(replace_layout(item, target) for item in value)
    if not changed and rope.layout != target and not isinstance(rope, NoRope):
        raise ConfigError(f"rope={type(rope).__name__} has layout={rope.layout} only; keep it")
    return dataclasses.replace(rope, **changed)  # type: ignore[type-var]
