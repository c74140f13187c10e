"""Uniform keys of samples: a pure function of (seed, number in the stream), so that ranks and resumed runs agree."""

from __future__ import annotations

import numpy as np

GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def draw_keys(seed: int | np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Keys uniform on [0, 2^64) of samples `numbers` (int, >= 0), uint64; `seed` and `numbers` broadcast.

    key = mix(mix(seed) ^ number), mix the finalizer of SplitMix64 (Steele, Lea & Flood 2014, OOPSLA): counter-based, so
    no state is kept, and for one seed no two numbers have the same key, because mix is a bijection.
    """
    with np.errstate(over="ignore"):
        words = np.asarray(seed).astype(np.int64).astype(np.uint64)
        return mix_words(mix_words(words) ^ np.asarray(numbers).astype(np.uint64))


def mix_words(words: np.ndarray) -> np.ndarray:
    """z = x + 0x9E3779B97F4A7C15, z = (z ^ z >> 30) 0xBF58476D1CE4E5B9, z = (z ^ z >> 27) 0x94D049BB133111EB,
    z ^ z >> 31, all modulo 2^64.
    """
    z = words + GOLDEN
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
