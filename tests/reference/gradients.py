"""What is done to gradients before a step, in plain loops of Python floats, from the papers."""

from __future__ import annotations

import math

Vector = list[float]
Matrix = list[Vector]


def norm(values: Vector) -> float:
    return math.sqrt(sum(value * value for value in values))


def adagc(steps: list[list[Vector]], relative: float, beta: float, warmup: int, most: float) -> list[list[Vector]]:
    """arXiv:2502.11034, algorithm 1, without the optimizer: `steps` has the gradient of every tensor at every step."""
    bounds = [math.inf] * len(steps[0])
    out = []
    for number, tensors in enumerate(steps):
        clipped = []
        for index, g in enumerate(tensors):
            if number < warmup:
                factor = min(most / norm([value for tensor in tensors for value in tensor]), 1.0)
            else:
                factor = min(relative * bounds[index] / norm(g), 1.0)
            h = [factor * value for value in g]
            if number < warmup:
                bounds[index] = min(bounds[index], norm(h))
            else:
                bounds[index] = beta * bounds[index] + (1 - beta) * norm(h)
            clipped.append(h)
        out.append(clipped)
    return out


def zclip(norms: Vector, threshold: float, alpha: float, warmup: int, guard: float) -> Vector:
    """arXiv:2504.02507, section 3: the norm after clipping at every step."""
    mean = sum(norms[:warmup]) / warmup
    variance = sum((value - mean) ** 2 for value in norms[:warmup]) / warmup
    out = norms[:warmup]
    for value in norms[warmup:]:
        sigma = math.sqrt(variance) + guard
        z = (value - mean) / sigma
        kept = mean + threshold**2 / z * sigma if z > threshold else value
        mean = alpha * mean + (1 - alpha) * kept
        variance = alpha * variance + (1 - alpha) * (kept - mean) ** 2
        out.append(kept)
    return out


def agc(weight: Matrix, gradient: Matrix, ratio: float, eps: float) -> Matrix:
    """arXiv:2102.06171, eq. 3, by rows."""
    out = []
    for w, g in zip(weight, gradient):
        largest = ratio * max(norm(w), eps)
        factor = largest / norm(g) if norm(g) > largest else 1.0
        out.append([factor * value for value in g])
    return out


def times(a: Matrix, b: Matrix) -> Matrix:
    return [[sum(a[i][k] * b[k][j] for k in range(len(b))) for j in range(len(b[0]))] for i in range(len(a))]


def turned(a: Matrix) -> Matrix:
    return [list(column) for column in zip(*a)]


def orthonormal(columns: Matrix) -> Matrix:
    """Gram and Schmidt, twice for the digits; a matrix of columns, given and returned as rows."""
    basis: Matrix = []
    for column in turned(columns):
        for _ in range(2):
            for known in basis:
                along = sum(a * b for a, b in zip(known, column))
                column = [a - along * b for a, b in zip(column, known)]
        basis.append([value / norm(column) for value in column])
    return turned(basis)


def low_rank(g: Matrix, omega: Matrix, power: int, balance: bool) -> Matrix:
    """Q Qᵀ G with Q = qr((A Aᵀ)^power A Omega), A = G or its rows over their rms (arXiv:0909.4061, algorithm 4.3)."""
    rms = [math.sqrt(sum(value * value for value in row) / len(row)) if balance else 1.0 for row in g]
    a = [[value / scale for value in row] for row, scale in zip(g, rms)]
    y = times(a, omega)
    for _ in range(power):
        y = times(a, times(turned(a), y))
    q = orthonormal([[value * scale for value in row] for row, scale in zip(y, rms)])
    return times(q, times(turned(q), g))
