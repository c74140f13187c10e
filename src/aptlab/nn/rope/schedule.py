"""One rule after the other over the layers."""

from __future__ import annotations

from dataclasses import dataclass, field

from aptlab.errors import ConfigError
from aptlab.nn.rope.base import Frequencies, Placement, Rope
from aptlab.nn.rope.fixed import Standard


@dataclass(frozen=True, kw_only=True)
class PerLayer(Rope):
    """Layer l has rule l % n of `rules`, as Gemma 3 has base 10,000 in local layers and 1,000,000 in every sixth."""

    rules: tuple[Rope, ...] = field(default_factory=lambda: (Standard(), Standard(base=1_000_000.0)))

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "rules", tuple(self.rules))
        if not self.rules or not all(isinstance(rule, Rope) for rule in self.rules):
            raise ConfigError("rope.rules must be a list of rope rules, one per layer of the cycle")

    @property
    def relative(self) -> bool:  # type: ignore[override]
        return all(rule.relative for rule in self.rules)

    @property
    def streams(self) -> int:  # type: ignore[override]
        return max(rule.streams for rule in self.rules)

    def inv_freq(self, head_dim: int) -> Frequencies:
        """Those of the first layer that turns."""
        turning = next((one for one in map(self.at, range(len(self.rules))) if one.rule is not None), None)
        if turning is None or turning.rule is None:
            raise ConfigError("rope.rules turn no layer; use rope=none")
        return turning.rule.inv_freq(head_dim)

    def at(self, layer: int) -> Placement:
        return self.rules[layer % len(self.rules)].at(layer)
