"""How a layer knows positions. The model makes one `Place` per layer; layers share the modules in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from aptlab.nn.positions.rope import Growth


class Positions:
    """Positions beside rotation: `bias` is added to the scores, `embed` to the token embedding.

    Both are factories, called by the model: bias(heads=, head_dim=, layer=), embed(dim=). None = nothing is added.
    """

    def __init__(self, *, bias: Callable[..., nn.Module] | None = None, embed: Callable[..., nn.Module] | None = None):
        self.bias, self.embed = bias, embed


@dataclass(frozen=True, kw_only=True)
class LayerPositions:
    """What one attention layer does with positions.

    rotary      module that turns queries and keys, as `aptlab.nn.positions.rotary.RotaryEmbedding`
    scores      module whose output is added to the logits, as `aptlab.nn.positions.bias.ALiBi`
    chunk       attention stays inside blocks of this many positions
    growth      queries grow with their position
    norm_after  queries and keys get a root mean square of 1 after they were turned
    norm_eps    of that norm; the model gives that of its own norms, as Llama 4 does

    Neither module belongs to the layer: the model holds them, once.
    """

    rotary: Any = None
    scores: Any = None
    chunk: int | None = None
    growth: Growth | None = None
    norm_after: bool = False
    norm_eps: float = 1e-6
