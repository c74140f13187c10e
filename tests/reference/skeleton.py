"""The six-field skeleton in plain loops and float64, from its definition: pool, move, compress, expand."""

from __future__ import annotations

import math


def pool(states: list[list[float]]) -> list[float]:
    """Mean over tokens of states [T][C]."""
    return [sum(row[c] for row in states) / len(states) for c in range(len(states[0]))]


def move(old: list[float] | None, new: list[float], momentum: float) -> list[float]:
    """m · old + (1 - m) · new; the first value counts whole."""
    if old is None:
        return new
    return [momentum * a + (1 - momentum) * b for a, b in zip(old, new, strict=True)]


def compress_mean(field: list[float]) -> list[float]:
    """Means of four neighbours."""
    return [sum(field[4 * k : 4 * k + 4]) / 4 for k in range(len(field) // 4)]


def expand_mean(z: list[float]) -> list[float]:
    """Each number four times."""
    return [z[c // 4] for c in range(4 * len(z))]


def compress_linear(weight: list[list[float]], field: list[float]) -> list[float]:
    """W · field."""
    return [sum(w * x for w, x in zip(row, field, strict=True)) for row in weight]


def expand_linear(weight: list[list[float]], z: list[float]) -> list[float]:
    """Wᵀ · z."""
    return [sum(weight[k][c] * z[k] for k in range(len(z))) for c in range(len(weight[0]))]


def scale(vector: list[float], rms: float) -> list[float]:
    """The vector at this root mean square."""
    size = math.sqrt(sum(x * x for x in vector) / len(vector))
    return [x * rms / size for x in vector]
