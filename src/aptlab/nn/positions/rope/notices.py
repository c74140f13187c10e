"""What a user should know before trusting a rule at a length."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from aptlab.nn.positions.layer import LayerPositions
from aptlab.nn.positions.rope.base import Rope

LAYERS = 24  # layers that are asked for their rule; schedules repeat within them
FAINT = 0.1  # temperature below which attention is all but uniform


def list_rope_warnings(rule: Rope, *, head_dim: int, length: int, name_option: Callable[[type], str]) -> list[str]:
    """Warnings, each with a way out.

    length       tokens of the longest text that the run will read
    name_option  the name in conf/rope of a class: a schedule has rules inside it, each with a name of its own
    """
    warnings = []
    if not rule.relative:
        warnings.append(
            f"rope={name_option(type(rule))}: logits depend on absolute positions, not on distances alone; "
            f"{rule.way_to_relative}"
        )
    for layer in dict.fromkeys(rule.for_layer(layer) for layer in range(LAYERS)):
        if layer.rule is not None:
            option = name_option(type(layer.rule))
            warnings += _of_layer(layer.rule, option, head_dim=head_dim, length=length, seen=_seen(layer, length))
    return list(dict.fromkeys(warnings))


def _seen(layer: LayerPositions, length: int) -> int:
    """The largest distance that a layer sees."""
    return length if layer.chunk is None else min(layer.chunk, length)


def _of_layer(rule: Rope, option: str, *, head_dim: int, length: int, seen: int) -> Iterator[str]:
    longest = _longest_wavelength(rule, head_dim, length)
    if longest < seen:
        yield (
            f"rope={option}: its longest wavelength is {longest:,.0f} tokens and a layer sees {seen:,}, so positions "
            "farther apart look alike; use a larger rope.base, a rope with a factor, or shorter texts"
        )
    if rule.temperature < FAINT:
        yield (
            f"rope={option}: its temperature multiplies logits by {rule.temperature:.3g}: attention is all but "
            "uniform; rope.temperature_law=yarn is the published one"
        )
    yield from rule.list_length_warnings(option, length)


def _longest_wavelength(rule: Rope, head_dim: int, length: int) -> float:
    """Tokens of the slowest rotation; infinite where pairs stand still, logits fade or positions are coordinates."""
    if rule.decay(head_dim) is not None or rule.amplitude(head_dim) is not None or not rule.plain_for_text:
        return math.inf
    frequencies = rule.frequencies_at(length, head_dim)
    still = len(frequencies) < head_dim // 2 or min(frequencies) == 0
    return math.inf if still else 2 * math.pi / min(frequencies)
