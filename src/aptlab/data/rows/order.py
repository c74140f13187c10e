"""The order of samples: a pure function of (seed, epoch, index) that needs no memory.

A Feistel network is a permutation of 2^(2b) numbers whatever its round function is (Luby and Rackoff 1988).
Walking its cycle until it lands below n (Black and Rogaway 2002, "cycle walking") makes it a permutation of n
numbers. So index i of epoch e is known at once: no shuffled list to keep, none to replay on resume.

`RowOrder` is the seam for any other order: a function of the position that may depend on a state, such as a
curriculum's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np

ROUNDS = 8
SMALLEST_HALF = 2
GOLDEN = 0x9E3779B97F4A7C15
MASK = (1 << 64) - 1


class RowOrder(ABC):
    """Which row stands at which position of training; position p counts rows on all ranks together, from 0.

    Equal for equal positions and an equal state, on every rank. A state changes only what stands at positions that no
    micro-batch was made of yet.

    name  says in a checkpoint which order its positions belong to
    """

    name: ClassVar[str]

    @abstractmethod
    def choose_rows(self, positions: np.ndarray) -> np.ndarray:
        """Row numbers at `positions` (int64 [B]); int64 [B]."""


def permute_indices(indices: np.ndarray, *, count: int, seed: int, epoch: int) -> np.ndarray:
    """Sample numbers at positions `indices` (int, in [0, count)) of the given epoch; same shape, int64.

    For fixed (seed, epoch, count) this is a permutation of range(count).
    """
    half = max(SMALLEST_HALF, ((count - 1).bit_length() + 1) // 2)
    keys = _keys(seed, epoch)
    values = _feistel(np.asarray(indices, dtype=np.uint64).reshape(-1), half, keys)
    outside = np.flatnonzero(values >= count)
    while outside.size:
        values[outside] = _feistel(values[outside], half, keys)
        outside = outside[values[outside] >= count]
    return values.astype(np.int64).reshape(np.shape(indices))


def _keys(seed: int, epoch: int) -> list[np.uint64]:
    """One 64-bit key per round, by splitmix64 (Steele et al. 2014) from seed and epoch."""
    state = _splitmix(_splitmix(seed & MASK) ^ (epoch & MASK))
    keys = []
    for _ in range(ROUNDS):
        state = (state + GOLDEN) & MASK
        keys.append(np.uint64(_splitmix(state)))
    return keys


def _splitmix(value: int) -> int:
    value = (value + GOLDEN) & MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)


def _feistel(values: np.ndarray, half: int, keys: list[np.uint64]) -> np.ndarray:
    """One pass of the network over numbers of 2 * half bits."""
    mask, shift = np.uint64((1 << half) - 1), np.uint64(half)
    left, right = values >> shift, values & mask
    for key in keys:
        left, right = right, left ^ (_mix(right + key) & mask)
    return (left << shift) | right


def _mix(values: np.ndarray) -> np.ndarray:
    """The 64-bit finalizer of MurmurHash3; arithmetic wraps."""
    values = (values ^ (values >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    values = (values ^ (values >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return values ^ (values >> np.uint64(33))
