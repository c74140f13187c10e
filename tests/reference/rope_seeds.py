"""The seeds' own formulas, xPos, and Llama 4's layer schedule, in float64 with loops. Nothing of aptlab is imported."""

import math

import numpy as np

from tests.reference.rope import standard

BASES = (10_000.0, 20_000.0, 30_000.0, 40_000.0)


def harmonic(head_dim):
    """theta_i = 1 / (1 + 2i)."""
    return [1.0 / (2 * i + 1) for i in range(head_dim // 2)]


def uniform(base, alpha, beta, head_dim):
    """Frequencies times alpha, angles times beta."""
    return [alpha * theta * beta for theta in standard(base, head_dim)]


def zones(base, factor, first, last, head_dim):
    """Dims below `first` as they are, from `last` on divided by s, linear between; pair i is dim 2i."""
    out = []
    for i, theta in enumerate(standard(base, head_dim)):
        dim = 2 * i
        if dim < first:
            divided = 0.0
        elif dim >= last:
            divided = 1.0
        else:
            divided = (dim - first) / (last - first)
        out.append((1 - divided) * theta + divided * theta / factor)
    return out


def apt_sqrt(factor, dim=128):
    """Factor on queries and keys each: sqrt(1 + ln(a) / d) · 0.1."""
    return math.sqrt(1 + math.log(factor) / dim) * 0.1


def phase_angle(position, pair, head_dim):
    """Angle of a pair with base number position % 4."""
    return position * standard(BASES[position % 4], head_dim)[pair]


def over_pairs(head_dim):
    """Base number i % 4 for pair i."""
    return [standard(BASES[i % 4], head_dim)[i] for i in range(head_dim // 2)]


def xpos_logit(q, k, m, n, *, base, gamma, scale_base, zeta=None):
    """Re sum_i q_i conj(k_i) zeta_i^((m-n)/512) e^(i (m-n) theta_i), pairs (i, i + P) (arXiv:2212.10554)."""
    head_dim = len(q)
    pairs, total = head_dim // 2, 0.0
    for i, theta in enumerate(standard(base, head_dim)):
        own = (2 * i + gamma * head_dim) / ((1 + gamma) * head_dim) if zeta is None else zeta(theta)
        first, second = complex(q[i], q[i + pairs]), complex(k[i], k[i + pairs])
        query = first * np.exp(1j * m * theta) * own ** (m / scale_base)
        key = second * np.exp(1j * n * theta) * own ** (-n / scale_base)
        total += (query * key.conjugate()).real
    return total


def angle_decay_logit(q, k, m, n, *, base, rate=0.01):
    """cos and sin of both times exp(-angle · rate): the seeds' xPos."""
    head_dim = len(q)
    pairs, total = head_dim // 2, 0.0
    for i, theta in enumerate(standard(base, head_dim)):
        query = complex(q[i], q[i + pairs]) * np.exp(1j * m * theta) * math.exp(-m * theta * rate)
        key = complex(k[i], k[i + pairs]) * np.exp(1j * n * theta) * math.exp(-n * theta * rate)
        total += (query * key.conjugate()).real
    return total


def llama4_layers(layers, interval):
    """Whether each layer rotates: Meta's model.py leaves out those where (l + 1) % interval == 0."""
    return [(layer + 1) % interval != 0 for layer in range(layers)]
