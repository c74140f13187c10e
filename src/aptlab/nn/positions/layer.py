"""How one layer knows positions. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from aptlab.limits import NonNegative, NonNegativeInt, PositiveInt, validate_limits


@dataclass(frozen=True, kw_only=True)
class Growth:
    """Queries times 1 + scale · ln(1 + floor((position + offset) / floor)): attention stays sharp far out (Llama 4).

    Meta's released model.py applies it at inference to layers without rotation, with offset 1; Ministral 3 to all
    layers, with offset 0 and its trained length as `floor`. Below `floor` it is 1.
    """

    floor: PositiveInt = 8192
    scale: NonNegative = 0.1
    offset: NonNegativeInt = 1

    def __post_init__(self) -> None:
        validate_limits(self)


@dataclass(frozen=True, kw_only=True)
class LayerPositions:
    """What positions do in one layer. A rule says the first four (`Rope.for_layer`), the model adds its modules.

    rule        how queries and keys rotate, an `aptlab.nn.positions.rope.Rope`; None = they do not
    chunk       attention stays inside blocks of this many positions; None = it sees everything before
    growth      queries grow with their position
    norm_after  queries and keys get a root mean square of 1 after they were rotated, without weights
    norm_eps    of that norm; the model gives that of its own norms, as Llama 4 does
    rotary      module that rotates by `rule`, as `aptlab.nn.positions.rotary.RotaryEmbedding`
    scores      module whose output is added to the logits, as `aptlab.nn.positions.bias.ALiBi`

    Neither module belongs to the layer: the model holds them, once.
    """

    rule: Any = None
    chunk: int | None = None
    growth: Growth | None = None
    norm_after: bool = False
    norm_eps: float = 1e-6
    rotary: Any = None
    scores: Any = None
