"""Layers with and without rotation, as in Llama 4. Source: Meta's released model.py and modeling_llama4.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from aptlab.limits import PositiveInt
from aptlab.nn.positions.layer import Growth, LayerPositions
from aptlab.nn.positions.rope.base import Frequencies, Rope
from aptlab.nn.positions.rope.standard import Standard


@dataclass(frozen=True, kw_only=True)
class IRope(Rope):
    """Most layers rotate and see blocks of `chunk` positions; every `interval`-th does neither (Llama 4).

    inner     the rule of the rotating layers; any rule, so Scout's llama3 scaling composes with the schedule, and a
              rule that differs from layer to layer keeps its own
    interval  layer l has no rotation where (l + 1) is divisible by it
    chunk     positions of a block; None = rotating layers see everything
    growth    queries of the layers without rotation grow with position; None = they do not
    qk_norm   queries and keys of rotating layers get a root mean square of 1, without weights, after they rotated;
              its eps is that of the model's norms
    """

    way_to_relative: ClassVar[str] = (
        "that is its design: blocks begin at fixed positions and queries grow with theirs; "
        "rope.chunk=null rope.growth=null is relative"
    )
    inner: Rope = field(default_factory=lambda: Standard(base=500_000.0, layout="interleaved"))
    interval: PositiveInt = 4
    chunk: PositiveInt | None = 8192
    growth: Growth | None = field(default_factory=Growth)
    qk_norm: bool = True

    @property
    def relative(self) -> bool:  # type: ignore[override]
        """Blocks begin at fixed positions, and queries grow with theirs."""
        return self.inner.relative and self.chunk is None and self.growth is None

    @property
    def streams(self) -> int:  # type: ignore[override]
        """Those of the inner rule."""
        return self.inner.streams

    def inv_freq(self, head_dim: int) -> Frequencies:
        """Those of the layers that rotate."""
        return self.inner.inv_freq(head_dim)

    def for_layer(self, layer: int) -> LayerPositions:
        """Nothing but growth in every `interval`-th layer, the inner rule in blocks in the others."""
        if (layer + 1) % self.interval == 0:
            return LayerPositions(growth=self.growth)
        return LayerPositions(rule=self.inner.for_layer(layer).rule, chunk=self.chunk, norm_after=self.qk_norm)
