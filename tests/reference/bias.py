"""Biases of attention scores in float64 with loops. Nothing of aptlab is imported.

Distances d = m - n >= 0 of a query at m and a key at n; H heads, heads are counted from 0.
"""

import math
from fractions import Fraction

import numpy as np


def alibi_slopes(heads):
    """2^(-8h/H) for powers of two; else those of the power below and every second one of the power above (the
    released code of Press et al. 2021, arXiv:2108.12409)."""

    def of_power(count):
        return [2.0 ** (-8.0 * (i + 1) / count) for i in range(count)]

    power = 2 ** math.floor(math.log2(heads))
    return of_power(power) if power == heads else of_power(power) + of_power(2 * power)[0::2][: heads - power]


def alibi(d, head, heads):
    return -alibi_slopes(heads)[head] * d


def t5_bucket(d, buckets, max_distance):
    """Raffel et al. 2019 (arXiv:1910.10683, section 2.1), by exact comparison of powers."""
    exact = buckets // 2
    if d < exact:
        return d
    n, bucket = buckets - exact, exact
    while bucket < buckets - 1 and Fraction(d, exact) ** n >= Fraction(max_distance, exact) ** (bucket + 1 - exact):
        bucket += 1
    return bucket


def kerple_log(d, r1, r2):
    """Chi et al. 2022 (arXiv:2205.09921)."""
    return -r1 * math.log(1 + r2 * d)


def kerple_power(d, r1, r2):
    return -r1 * d**r2 if d else 0.0


def dense(value, queries, keys, heads):
    """value(d, head) for every head, query and key at or before it; NaN where the key comes later."""
    out = np.full((heads, len(queries), len(keys)), np.nan)
    for h in range(heads):
        for i, m in enumerate(queries):
            for j, n in enumerate(keys):
                if n <= m:
                    out[h, i, j] = value(m - n, h)
    return out


def cope(q, k, embed, sees):
    """Golovneva et al. 2024 (arXiv:2405.18719) of q [T, D], k [S, D], embed [N, D]; `sees(i, j)` for indices.

    The gates divide by sqrt(D) as the authors' code does.
    """
    out = np.full((len(q), len(k)), np.nan)
    for i in range(len(q)):
        seen = [j for j in range(len(k)) if sees(i, j)]
        gate = {j: 1 / (1 + math.exp(-float(q[i] @ k[j]) / math.sqrt(q.shape[1]))) for j in seen}
        for j in seen:
            place = min(sum(gate[other] for other in seen if other >= j), len(embed) - 1)
            low = math.floor(place)
            high = min(low + 1, len(embed) - 1)
            out[i, j] = q[i] @ ((1 - (place - low)) * embed[low] + (place - low) * embed[high])
    return out
