"""Any rule with queries that grow with their position. Source: modeling_ministral3.py of transformers."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import ClassVar

from aptlab.nn.positions.layer import Growth, LayerPositions
from aptlab.nn.positions.rope.base import Frequencies, Rope
from aptlab.nn.positions.rope.standard import Standard


@dataclass(frozen=True, kw_only=True)
class GrowingQueries(Rope):
    """What `inner` does, and queries times 1 + scale · ln(1 + floor(position / floor)) in all layers (Ministral 3).

    inner   the rule of all layers; what it does in each of them stays
    growth  of the queries; `floor` is the trained length, so that nothing changes within it
    """

    way_to_relative: ClassVar[str] = "queries grow with their position by design; the inner rule alone is relative"
    inner: Rope = field(default_factory=lambda: Standard(base=1_000_000.0))
    growth: Growth = field(default_factory=lambda: Growth(floor=16_384, offset=0))

    @property
    def relative(self) -> bool:  # type: ignore[override]
        """Queries grow with their position."""
        return self.inner.relative and self.growth.scale == 0

    @property
    def streams(self) -> int:  # type: ignore[override]
        """Those of the inner rule."""
        return self.inner.streams

    def inv_freq(self, head_dim: int) -> Frequencies:
        """Those of the inner rule."""
        return self.inner.inv_freq(head_dim)

    def for_layer(self, layer: int) -> LayerPositions:
        """What the inner rule does there, with growing queries."""
        return dataclasses.replace(self.inner.for_layer(layer), growth=self.growth)
