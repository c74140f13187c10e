"""What a user should know before trusting a rule at a length."""

from __future__ import annotations

import math

from aptlab.nn.rope.base import Rope


def notices(rule: Rope, *, head_dim: int, length: int) -> list[str]:
    """Warnings, each with a way out. `length` is the longest text that the run will read."""
    found = []
    name = NAMES.get(type(rule).__name__, type(rule).__name__)
    if not rule.relative:
        found.append(
            f"rope={name}: logits depend on absolute positions, not on distances alone; "
            f"{WAYS.get(name, 'rope=standard is relative')}"
        )
    turning = [f for layer in range(4) for f in frequencies(rule, layer, head_dim) if f > 0]
    if turning and 2 * math.pi / min(turning) < length:
        longest = 2 * math.pi / min(turning)
        found.append(
            f"rope={name}: its longest wavelength is {longest:,.0f} tokens and the run reads up to {length:,}, so "
            "positions farther apart look alike; use a larger rope.base, a rope with a factor, or shorter texts"
        )
    if 0 < rule.temperature < 0.1:
        found.append(
            f"rope={name}: its temperature multiplies logits by {rule.temperature:.3g}: attention is all but uniform; "
            "rope.law=yarn is the published one"
        )
    reach = getattr(rule, "original_len", None)
    factor = getattr(rule, "factor", None)
    if reach and factor and length > reach * factor * 1.01:
        found.append(
            f"rope={name}: original_len={reach:,} x factor={factor:g} reaches {round(reach * factor):,} tokens and the "
            f"run reads up to {length:,}; use rope.factor={length / reach:g}"
        )
    return found


NAMES = {"IRopePhase": "irope_phase", "XPosAngleDecay": "xpos_angle_decay", "IRope": "irope", "LongRoPE": "longrope"}
WAYS = {
    "irope_phase": "rope=irope_pairs keeps the four bases and is relative",
    "xpos_angle_decay": "rope=xpos is relative, also with rope.zeta=angle",
    "irope": "that is its design: blocks begin at fixed positions and queries grow with theirs",
    "longrope": "rope.retained=0 is relative",
}


def frequencies(rule: Rope, layer: int, head_dim: int) -> tuple[float, ...]:
    placed = rule.at(layer).rule
    return () if placed is None else placed.inv_freq(head_dim)
