"""Where a search begins: factors of the published rules, and the pair from which LongRoPE2 searches. No torch.

Legend: P pairs, L trained length, s = new length / L, lambda_i divisor of pair i's frequency.
"""

from __future__ import annotations

import math

from aptlab.nn.positions.rope import NTK, Linear, Standard, YaRN
from aptlab.nn.positions.rope.base import Rope
from aptlab.search.space import Factors, SearchSpace

SEEDS = 8  # starting values per critical pair (released code of LongRoPE2)
SPREAD = 0.1  # s · (1 + 0.1 k) for seed k
PERIODS = 10  # full rotations within L of the first pair that may be critical
RISE = 4.0  # the last pair exceeds the one before it by at most this (released code)


def compute_divisors(rule: Rope, base: float, head_dim: int) -> Factors:
    """lambda_i of a rule: the standard frequency over its own."""
    standard = Standard(base=base).inv_freq(head_dim)  # type: ignore[call-arg]
    return tuple(plain / frequency for plain, frequency in zip(standard, rule.inv_freq(head_dim), strict=True))


def compute_published_factors(*, base: float, head_dim: int, original_len: int, scale: float) -> dict[str, Factors]:
    """Factors of PI, NTK and YaRN for this extension, by name."""
    rules: dict[str, Rope] = {
        "linear": Linear(base=base, factor=scale),  # type: ignore[call-arg]
        "ntk": NTK(base=base, factor=scale),  # type: ignore[call-arg]
        "yarn": YaRN(base=base, factor=scale, original_len=original_len),  # type: ignore[call-arg]
    }
    return {name: compute_divisors(rule, base, head_dim) for name, rule in rules.items()}


def find_pair_by_rotations(rotations: float, *, base: float, pairs: int, length: int) -> int:
    """The first pair with fewer rotations within `length`: ceil(P · log_base(length / (2 pi rotations)))."""
    exact = pairs * math.log(length / (2 * math.pi * rotations)) / math.log(base)
    return min(max(math.ceil(exact), 1), pairs - 1)


def list_critical_pairs(*, base: float, pairs: int, length: int) -> range:
    """Pairs that may be the real critical one: from the last with ten rotations in L to the theoretical one."""
    theoretical = find_pair_by_rotations(1, base=base, pairs=pairs, length=length)
    return range(find_pair_by_rotations(PERIODS, base=base, pairs=pairs, length=length), theoretical + 1)


def build_v1_space(*, pairs: int, scale: float, step: float) -> SearchSpace:
    """LongRoPE: every pair in [1, 1 + s], not falling."""
    return SearchSpace(pairs=pairs, low=1.0, high=1.0 + scale, step=step)


def build_v2_space(first: int, *, pairs: int, scale: float, step: float) -> SearchSpace:
    """LongRoPE2: pairs from the critical one on in [s, 2s], rising; NTK below it."""
    return SearchSpace(pairs=pairs, low=scale, high=2 * scale, step=step, first=first, strict=True, rise=RISE)


def build_v2_seeds(space: SearchSpace) -> list[tuple[int, ...]]:
    """Genomes with the critical pair stretched by s · (1 + 0.1 k), k = 0 … 7; slower pairs rise least."""
    wished = ([space.low * (1 + SPREAD * k)] * space.pairs for k in range(SEEDS))
    return list(dict.fromkeys(space.nearest(values) for values in wished))
