"""One rule after the other over the layers."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import ClassVar

from aptlab.errors import ConfigError
from aptlab.limits import PositiveInt
from aptlab.nn.positions.layer import LayerPositions
from aptlab.nn.positions.rope.base import Frequencies, Rope
from aptlab.nn.positions.rope.standard import Standard


@dataclass(frozen=True, kw_only=True)
class PerLayer(Rope):
    """Layer l has rule l % n of `rules`, as Gemma 3 has base 10,000 in local layers and 1,000,000 in every sixth.

    Gemma Team 2025 (arXiv:2503.19786). A sliding window, as Gemma's local layers have, is attention=sliding.

    chunks  one per rule: attention stays inside blocks of this many positions, None = it reaches everything before;
            None for all = as each rule says
    """

    way_to_relative: ClassVar[str] = "rope.chunks=null and relative rules are"
    rules: tuple[Rope, ...] = field(default_factory=lambda: (Standard(), Standard(base=1_000_000.0)))
    chunks: tuple[PositiveInt | None, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "rules", tuple(self.rules))
        if not self.rules or not all(isinstance(rule, Rope) for rule in self.rules):
            raise ConfigError("rules must be a list of rope rules, one per layer of the cycle")
        if self.chunks is None:
            return
        object.__setattr__(self, "chunks", tuple(self.chunks))
        if len(self.chunks) != len(self.rules) or any(chunk is not None and chunk < 1 for chunk in self.chunks):
            raise ConfigError(
                f"chunks={list(self.chunks)} must have one number of positions or null for each of the "
                f"{len(self.rules)} rules; chunks=null leaves blocks to the rules"
            )

    @property
    def relative(self) -> bool:  # type: ignore[override]
        """Blocks begin at fixed positions."""
        return all(rule.relative for rule in self.rules) and not any(self.chunks or ())

    @property
    def streams(self) -> int:  # type: ignore[override]
        """The most that a rule needs."""
        return max(rule.streams for rule in self.rules)

    def inv_freq(self, head_dim: int) -> Frequencies:
        """Those of the first layer that rotates."""
        first = next(
            (placed for placed in map(self.for_layer, range(len(self.rules))) if placed.rule is not None), None
        )
        if first is None or first.rule is None:
            raise ConfigError("rules rotate no layer; use rope=none")
        return first.rule.inv_freq(head_dim)

    def for_layer(self, layer: int) -> LayerPositions:
        """What rule l % n does in layer l, in the block that `chunks` gives it."""
        place = self.rules[layer % len(self.rules)].for_layer(layer)
        return place if self.chunks is None else dataclasses.replace(place, chunk=self.chunks[layer % len(self.rules)])
