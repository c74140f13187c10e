"""How the rotation kernel goes through the heads of a token: what `benchmarks/rotary_kernel.py --sweep` measured."""

from __future__ import annotations

from typing import NamedTuple

import triton


class Tile(NamedTuple):
    """A choice of sizes.

    heads     read at a time
    warps     of a program
    programs  per multiprocessor, where weights get gradients
    """

    heads: int
    warps: int
    programs: int = 4


# Pairs of a head and place of the norm -> the fastest tile on an H200, for half-split and for interleaved pairs.
FORWARD = {
    (32, 0): (Tile(16, 1), Tile(16, 1)),
    (32, 1): (Tile(16, 1), Tile(16, 1)),
    (32, 2): (Tile(16, 1), Tile(16, 1)),
    (64, 0): (Tile(16, 8), Tile(16, 4)),
    (64, 1): (Tile(4, 4), Tile(4, 4)),
    (64, 2): (Tile(16, 8), Tile(4, 4)),
    (128, 0): (Tile(8, 8), Tile(8, 4)),
    (128, 1): (Tile(8, 1), Tile(8, 1)),
    (128, 2): (Tile(8, 8), Tile(8, 4)),
}
# Pairs of a head -> the tile where weights get gradients, and where there are none.
BACKWARD = {
    32: (Tile(4, 2, programs=16), Tile(4, 1)),
    64: (Tile(8, 1, programs=16), Tile(8, 1)),
    128: (Tile(4, 1, programs=16), Tile(4, 1)),
}


def choose_forward_tile(norm: int, pairs: int, *, interleaved: bool) -> Tile:
    """For the rotation, and for its gradient where there is no norm, which is the rotation back."""
    return FORWARD[round_up_pairs(pairs), norm][1 if interleaved else 0]


def choose_backward_tile(pairs: int, *, weighted: bool) -> Tile:
    """For the gradient through a norm, with or without gradients of its weights."""
    return BACKWARD[round_up_pairs(pairs)][0 if weighted else 1]


def round_up_pairs(pairs: int) -> int:
    """The measured number of pairs that is nearest from above, else the largest."""
    return min(max(triton.next_power_of_2(pairs), 32), 128)


def choose_heads_per_tile(count: int, most: int) -> int:
    """The largest power of two <= `most` that covers `count` heads with at most a quarter more."""
    size = triton.next_power_of_2(most)
    while size > 1 and 4 * -(-count // size) * size > 5 * count:
        size //= 2
    return size
