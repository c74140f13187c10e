"""Which layers see how many earlier tokens. No torch."""

from __future__ import annotations

from dataclasses import dataclass

from aptlab.errors import ConfigError
from aptlab.limits import NonNegativeInt, PositiveInt, validate_limits


@dataclass(frozen=True, kw_only=True)
class SlidingWindow:
    """Every token sees itself and the `size` - 1 tokens before it (Beltagy et al. 2020, arXiv:2004.05150).

    full_every   n leaves every n-th layer unlimited: 2 as in gpt-oss, 6 as in Gemma 3; None limits all layers
    full_layers  layers, counted from 0, that see everything beside those, as the first `max_window_layers` of Qwen 2 do
    """

    size: PositiveInt = 1024
    full_every: PositiveInt | None = None
    full_layers: tuple[NonNegativeInt, ...] = ()

    def __post_init__(self) -> None:
        validate_limits(self)
        if self.full_every == 1:
            raise ConfigError("full_every=1 limits no layer; use attention=full, or 2 and more")
        object.__setattr__(self, "full_layers", tuple(self.full_layers))
        if any(isinstance(layer, bool) or not isinstance(layer, int) or layer < 0 for layer in self.full_layers):
            raise ConfigError(f"full_layers={list(self.full_layers)} must be numbers of layers, counted from 0")

    def for_layer(self, layer: int) -> int | None:
        """The window of a layer, None where it sees everything."""
        full = bool(self.full_every) and (layer + 1) % (self.full_every or 1) == 0
        return None if full or layer in self.full_layers else self.size


def mean_visible_keys(tokens: int, *, window: int | None = None, chunk: int | None = None) -> float:
    """Keys that a token sees in the mean over a text: causal, within its window and its block of `chunk` positions."""
    chunk = min(chunk or tokens, tokens)
    blocks, rest = divmod(tokens, chunk)
    return (blocks * _pairs(chunk, window) + _pairs(rest, window)) / tokens


def _pairs(tokens: int, window: int | None) -> int:
    """Pairs of a token and a key that it sees, in one block."""
    window = min(window or tokens, tokens)
    return window * (window + 1) // 2 + (tokens - window) * window
