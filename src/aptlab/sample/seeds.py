"""Random numbers without a state: number `step` of seed `seed`, the same on every device. No torch."""

from __future__ import annotations

WORD = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15  # 2^64 / golden ratio
BITS = 48  # fewer than a double holds, so that u · total stays below total after rounding


def draw_uniform(seed: int, step: int) -> float:
    """A number in [0, 1), independent for every (seed, step): two rounds of SplitMix64 (Steele et al. 2014, OOPSLA).

    A text then depends on its own seed and length only, not on the rows beside it nor on the device's generator.
    """
    return (_mix(_mix(seed & WORD) + GOLDEN * (step + 1)) >> (64 - BITS)) / 2**BITS


def _mix(x: int) -> int:
    x = (x + GOLDEN) & WORD
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & WORD
    return x ^ (x >> 31)
