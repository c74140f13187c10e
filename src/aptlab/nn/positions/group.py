"""The three ways in which a model knows positions, side by side. No torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aptlab.nn.positions.rope import Rope, Standard

if TYPE_CHECKING:
    from aptlab.nn.positions.absolute import AddedPositions
    from aptlab.nn.positions.bias import PositionBias


@dataclass(frozen=True, kw_only=True)
class Positions:
    """Positions of a model: rotated into queries and keys, added to the scores, added to the token embedding.

    rope   a rule
    bias   factory bias(heads=, head_dim=, layer=), None = nothing is added to the scores
    embed  factory embed(dim=), None = nothing is added to the embedding
    """

    rope: Rope = field(default_factory=Standard)
    bias: Callable[..., PositionBias] | None = None
    embed: Callable[..., AddedPositions] | None = None
