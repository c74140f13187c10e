"""What a user should know before trusting a rule at a length."""

from __future__ import annotations

import math
from collections.abc import Iterator

from aptlab.nn.positions.layer import LayerPositions
from aptlab.nn.positions.rope.base import Frequencies, Rope
from aptlab.nn.positions.rope.longrope import SearchedRotation
from aptlab.nn.positions.rope.ntk import Dynamic
from aptlab.nn.positions.rope.scaled import CLOSE, ScaledRotation

LAYERS = 24  # layers that are asked for their rule; schedules repeat within them
FAINT = 0.1  # temperature below which attention is all but uniform
SPELLED = ("irope_heads", "irope_layers", "irope_pairs", "irope_phase", "linear_harmonic", "mrope_interleaved")
SPELLED += ("ntk_by_parts", "ntk_liu", "per_layer", "xpos_angle_decay", "yarn_uniform", "yarn_zones")
OPTIONS = {name.replace("_", ""): name for name in SPELLED} | {"norope": "none"}
WAYS = {
    "irope": "that is its design: blocks begin at fixed positions and queries grow with theirs; "
    "rope.chunk=null rope.growth=null is relative",
    "irope_phase": "rope=irope_pairs keeps the four bases and is relative",
    "longrope": "rope.retained=0 is relative",
    "per_layer": "rope.chunks=null and relative rules are",
    "xpos_angle_decay": "rope=xpos is relative, also with rope.zeta=angle",
}


def get_option_name(rule: Rope) -> str:
    """The rule's name in conf/rope: `rope=…`."""
    name = type(rule).__name__.lower()
    return OPTIONS.get(name, name)


def list_rope_warnings(rule: Rope, *, head_dim: int, length: int) -> list[str]:
    """Warnings, each with a way out. `length` is that of the longest text the run will read."""
    found = []
    if not rule.relative:
        name = get_option_name(rule)
        way = WAYS.get(name, "rope=standard is relative")
        found.append(f"rope={name}: logits depend on absolute positions, not on distances alone; {way}")
    for place in dict.fromkeys(rule.for_layer(layer) for layer in range(LAYERS)):
        if place.rule is not None:
            found += _of_layer(place.rule, head_dim=head_dim, length=length, reach=_reach(place, length))
    return list(dict.fromkeys(found))


def _reach(place: LayerPositions, length: int) -> int:
    """The largest distance that a layer sees."""
    return length if place.chunk is None else min(place.chunk, length)


def _of_layer(rule: Rope, *, head_dim: int, length: int, reach: int) -> Iterator[str]:
    name = get_option_name(rule)
    longest = _longest_wavelength(rule, head_dim, length)
    if longest < reach:
        yield (
            f"rope={name}: its longest wavelength is {longest:,.0f} tokens and a layer sees {reach:,}, so positions "
            "farther apart look alike; use a larger rope.base, a rope with a factor, or shorter texts"
        )
    if rule.temperature < FAINT:
        yield (
            f"rope={name}: its temperature multiplies logits by {rule.temperature:.3g}: attention is all but uniform; "
            "rope.law=yarn is the published one"
        )
    if isinstance(rule, ScaledRotation):
        yield from _of_lengths(rule, name, length)
    if isinstance(rule, SearchedRotation) and rule.long is None and length > rule.original_len:
        yield (
            f"rope={name}: rope.long=null, so its divisors are a first guess and not searched; "
            f"`aptlab search rope={name} ckpt=… target={length}` finds them"
        )


def _of_lengths(rule: ScaledRotation, name: str, length: int) -> Iterator[str]:
    """A dynamic rule stretches as far as a text is long; the others as far as they are told."""
    reach = rule.original_len * rule.stretch
    if not isinstance(rule, Dynamic) and length > reach * (1 + CLOSE):
        yield (
            f"rope={name}: original_len={rule.original_len:,} x factor={rule.stretch:g} reaches {round(reach):,} "
            f"tokens and the run reads up to {length:,}; use rope.factor={length / rule.original_len:.4g}"
        )
    if rule.target_len is not None and abs(reach / max(rule.target_len, rule.original_len) - 1) > CLOSE:
        yield (
            f"rope={name}: rope.allow_factor_mismatch=true lets factor={rule.stretch:g} reach {round(reach):,} tokens "
            f"where target_len={rule.target_len:,}; rope.factor=null follows from the lengths"
        )


def _longest_wavelength(rule: Rope, head_dim: int, length: int) -> float:
    """Tokens of the slowest turn; infinite where pairs stand still, logits fade or positions are coordinates."""
    text = rule.streams == 1 or getattr(rule, "grid", 0) is None  # mrope without a grid is plain for text
    if rule.decay(head_dim) is not None or rule.amplitude(head_dim) is not None or not text:
        return math.inf
    frequencies = _frequencies(rule, head_dim, length)
    still = len(frequencies) < head_dim // 2 or min(frequencies) == 0
    return math.inf if still else 2 * math.pi / min(frequencies)


def _frequencies(rule: Rope, head_dim: int, length: int) -> Frequencies:
    """Those that texts of this length meet."""
    if isinstance(rule, Dynamic):
        base = rule.base_at(length, head_dim)
        return tuple(base ** (-2 * i / head_dim) for i in range(head_dim // 2))
    if isinstance(rule, SearchedRotation):
        return rule.regimes(head_dim)[int(length > rule.original_len)]
    return rule.inv_freq(head_dim)
