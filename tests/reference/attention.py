"""Attention in float64 with loops. Nothing of aptlab is imported.

T tokens, H query heads, K key/value heads, D head dim.
"""

import math

import numpy as np


def softmax(values):
    top = max(values)
    powers = [math.exp(v - top) for v in values]
    total = sum(powers)
    return [p / total for p in powers]


def attend(q, k, v, scale, sees, softcap=None):
    """softmax(scale · q·k) v (Vaswani et al. 2017, arXiv:1706.03762, eq. 1) of q [T, H, D] and k, v [T, K, D].

    With a softcap c a logit z is c · tanh(z / c) (Gemma 2, arXiv:2408.00118).

    Query head h reads key/value head h // (H / K) (Ainslie et al. 2023, arXiv:2305.13245); `sees(m, n)` says whether
    the query at m may look at the key at n.
    """
    tokens, heads, head_dim = q.shape
    group = heads // k.shape[1]
    out = np.zeros((tokens, heads, head_dim))
    for m in range(tokens):
        allowed = [n for n in range(k.shape[0]) if sees(m, n)]
        for h in range(heads):
            logits = [scale * float(q[m, h] @ k[n, h // group]) for n in allowed]
            if softcap is not None:
                logits = [softcap * math.tanh(z / softcap) for z in logits]
            weights = softmax(logits)
            for weight, n in zip(weights, allowed):
                out[m, h] += weight * v[n, h // group]
    return out
