"""A gated low-rank branch in plain loops of Python floats."""

from __future__ import annotations

import math

Vector = list[float]
Matrix = list[Vector]


def apply(matrix: Matrix, x: Vector) -> Vector:
    return [sum(a * b for a, b in zip(row, x)) for row in matrix]


def branch(x: Matrix, parts: dict[str, Matrix], bias: Vector, factor: float, sees: list[list[int]]) -> Matrix:
    """factor · V (sigmoid(W mean(x_s) + b) ⊙ U x_t) for every token t, the mean over the tokens s of sees[t]."""
    out = []
    for t, row in enumerate(x):
        seen = [x[s] for s in sees[t]]
        mean = [sum(column) / len(seen) for column in zip(*seen)]
        gate = [1 / (1 + math.exp(-(value + b))) for value, b in zip(apply(parts["W"], mean), bias)]
        inner = [g * value for g, value in zip(gate, apply(parts["U"], row))]
        out.append([factor * value for value in apply(parts["V"], inner)])
    return out
