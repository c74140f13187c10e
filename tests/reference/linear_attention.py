"""Linear attention with rotation in float64, quadratic, with loops. Nothing of aptlab is imported.

T tokens, H query heads, K key/value heads, D head dim; theta [P] with P <= D/2, pairs are (i, i + P).
"""

import math

import numpy as np


def phi(x):
    """elu(x) + 1 (Katharopoulos et al. 2020, arXiv:2006.16236, eq. 7)."""
    return np.where(x > 0, x + 1, np.exp(np.minimum(x, 0)))


def rotate(x, place, theta):
    out = np.array(x, dtype=np.float64)
    pairs = len(theta)
    for i, t in enumerate(theta):
        a, b, c, s = x[i], x[i + pairs], math.cos(place * t), math.sin(place * t)
        out[i], out[i + pairs] = a * c - b * s, b * c + a * s
    return out


def one_plus_cos(fq, fk, distance, theta):
    """sum_j phi(q)_j phi(k)_j (1 + cos(distance · theta_j)); 2 for a dim that does not rotate."""
    pairs, total = len(theta), 0.0
    for j in range(len(fq)):
        t = theta[j % pairs] if j < 2 * pairs else 0.0
        total += fq[j] * fk[j] * (1 + math.cos(distance * t))
    return total


def attend(q, k, v, places, theta, form, sees):
    """Output [T, H, D] of q [T, H, D], k and v [T, K, D] at integer places; `sees(i, j)` for indices.

    numerator: Su et al. 2021 (arXiv:2104.09864, eq. 19). A token that sees nothing gets zeros.
    """
    tokens, heads, head_dim = q.shape
    group = heads // k.shape[1]
    fq, fk = phi(q), phi(k)
    out = np.zeros((tokens, heads, head_dim))
    for i in range(tokens):
        seen = [j for j in range(tokens) if sees(i, j)]
        for h in range(heads):
            above, below = np.zeros(head_dim), 0.0
            for j in seen:
                a, b = fq[i, h], fk[j, h // group]
                if form == "numerator":
                    weight = float(rotate(a, places[i], theta) @ rotate(b, places[j], theta))
                    below += float(a @ b)
                else:
                    weight = one_plus_cos(a, b, places[i] - places[j], theta)
                    below += weight
                above += weight * v[j, h // group]
            out[i, h] = above / below if seen else 0.0
    return out
