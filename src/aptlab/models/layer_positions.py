"""What each layer of a model does with positions; layers with equal rules share one module."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from torch import nn

from aptlab.nn.positions import LayerPositions
from aptlab.nn.positions.bias import NoBias
from aptlab.nn.positions.rope import Rope
from aptlab.nn.positions.rotary import build_rotary
from aptlab.nn.shape import Shape


def build_rotaries(shape: Shape, rope: Rope, norm: nn.Module) -> tuple[nn.ModuleList, list[LayerPositions]]:
    """The modules that rotate, and what each layer does with them; layers may take the eps of the last `norm`."""
    heads, kv_heads, head_dim = shape.head_sizes()
    layers = [rope.for_layer(layer) for layer in range(shape.depth)]
    rules = dict.fromkeys(placed.rule for placed in layers if placed.rule is not None)
    modules = {rule: build_rotary(rule, head_dim=head_dim, heads=heads, kv_heads=kv_heads) for rule in rules}
    eps = float(getattr(norm, "eps", LayerPositions.norm_eps))
    placed = [
        dataclasses.replace(layer, rotary=None if layer.rule is None else modules[layer.rule], norm_eps=eps)
        for layer in layers
    ]
    return nn.ModuleList(modules.values()), placed


def add_biases(layers: list[LayerPositions], biases: nn.ModuleList) -> list[LayerPositions]:
    """The same layers, with what is added to the scores of each: one module for all, or one for each."""
    return [
        dataclasses.replace(placed, scores=biases[layer % len(biases)] if len(biases) else None)
        for layer, placed in enumerate(layers)
    ]


def build_biases(factory: Callable[..., nn.Module], shape: Shape) -> nn.ModuleList:
    """One module for all layers where it says that layers share it, else one per layer; none for `bias=none`."""
    heads, _, head_dim = shape.head_sizes()
    first = factory(heads=heads, head_dim=head_dim, layer=0)
    if isinstance(first, NoBias):
        return nn.ModuleList()
    rest = [] if first.shared else range(1, shape.depth)
    return nn.ModuleList([first, *(factory(heads=heads, head_dim=head_dim, layer=layer) for layer in rest)])
