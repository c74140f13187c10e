"""Nested feed-forwards and their training in float64 loops. Nothing of aptlab is imported."""

import math

import numpy as np


def nested_ffn(x, w1, b1, w2, b2, units, sigma):
    """T(x) = W2[:, :m] sigma(W1[:m] x + b1[:m]) + b2 (Devvrit et al. 2023, arXiv:2310.07707, section 3.1)."""
    hidden = [sigma(sum(w * v for w, v in zip(w1[i], x, strict=True)) + b1[i]) for i in range(units)]
    return np.array([sum(w2[c][i] * hidden[i] for i in range(units)) + b2[c] for c in range(len(w2))])


def nested_gated(x, gate, gate_bias, up, up_bias, w2, b2, units, join):
    """The same with a gate: both matrices keep their first m rows; join(g, u) is the unit."""
    hidden = []
    for i in range(units):
        g = sum(w * v for w, v in zip(gate[i], x, strict=True)) + gate_bias[i]
        u = sum(w * v for w, v in zip(up[i], x, strict=True)) + up_bias[i]
        hidden.append(join(g, u))
    return np.array([sum(w2[c][i] * hidden[i] for i in range(units)) + b2[c] for c in range(len(w2))])


def divergence(teacher, student):
    """sum p (ln p - ln q) of two rows of logits, p the teacher's (Yu & Huang 2019, arXiv:1903.05134, section 3.2)."""

    def log_softmax(row):
        top = max(row)
        total = math.log(sum(math.exp(z - top) for z in row)) + top
        return [z - total for z in row]

    return sum(math.exp(p) * (p - q) for p, q in zip(log_softmax(teacher), log_softmax(student), strict=True))


def accept_draft(p, q, token, number):
    """(whether a drafted token stays, what else is drawn from): Leviathan et al. 2023 (arXiv:2211.17192, algorithm 1).

    It stays with probability min(1, p / q); else the next token is drawn from max(0, p - q), normed.
    """
    left = [max(0.0, a - b) for a, b in zip(p, q, strict=True)]
    total = sum(left)
    return number < min(1.0, p[token] / q[token]), [value / total for value in left] if total else list(p)
