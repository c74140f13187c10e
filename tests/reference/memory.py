"""Memory tiers in float64 by plain loops, from the papers. One row, one head at a time; lists of vectors."""

from __future__ import annotations

import math

import numpy as np


def feature_map(x):
    """elu(x) + 1."""
    return np.where(x > 0, x + 1, np.exp(np.minimum(x, 0)))


def attend(q, keys, values, scale):
    """softmax(scale · q·k) v over a list of keys."""
    logits = np.array([scale * float(q @ k) for k in keys])
    weights = np.exp(logits - logits.max())
    return sum(w * v for w, v in zip(weights / weights.sum(), values, strict=True))


def attend_locally(q, k, v, segment):
    """Attention of each token to those of its own segment up to itself; rows of q, k, v are tokens."""
    out = []
    for t in range(len(q)):
        begin = t // segment * segment
        out.append(attend(q[t], k[begin : t + 1], v[begin : t + 1], 1 / math.sqrt(q.shape[1])))
    return np.array(out)


def infini(q, k, v, rotated_q, rotated_k, *, segment, beta, delta):
    """Infini-attention of one head (Munkhdalai et al. 2024, arXiv:2404.07143, eq. 3-6), segment by segment."""
    local = attend_locally(rotated_q, rotated_k, v, segment)
    dims = q.shape[1]
    memory, z = np.zeros((dims, v.shape[1])), np.zeros(dims)
    gate, out = 1 / (1 + math.exp(-beta)), []
    for begin in range(0, len(q), segment):
        part = range(begin, min(begin + segment, len(q)))
        for t in part:
            phi = feature_map(q[t])
            out.append(gate * (phi @ memory) / (phi @ z) + (1 - gate) * local[t] if z.any() else local[t])
        new_memory, new_z = memory.copy(), z.copy()
        for t in part:
            phi = feature_map(k[t])
            known = (phi @ memory) / (phi @ z) if delta and z.any() else 0.0
            new_memory += np.outer(phi, v[t] - known)
            new_z += phi
        memory, z = new_memory, new_z
    return np.array(out)


def knn(q, k, v, *, segment, size, neighbors, scale, bias):
    """Memorizing Transformers' layer of one head (Wu et al. 2022, arXiv:2203.08913, section 3.2), no positions."""
    q, k = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (q, k))
    gate, out = 1 / (1 + math.exp(-bias)), []
    for t in range(len(q)):
        begin = t // segment * segment
        local = attend(q[t], k[begin : t + 1], v[begin : t + 1], scale)
        remembered = range(max(begin - size, 0), begin)
        if not remembered:
            out.append(local)
            continue
        best = sorted(remembered, key=lambda n: -scale * float(q[t] @ k[n]))[:neighbors]
        out.append(gate * attend(q[t], k[best], v[best], scale) + (1 - gate) * local)
    return np.array(out)


def silu(x):
    """x · sigmoid(x)."""
    return x / (1 + np.exp(-x))


def mlp_gradient(first, second, k, v):
    """Gradients of |W2 silu(W1 k) - v|² to W1 and W2, by the chain rule."""
    a = first @ k
    sigmoid = 1 / (1 + np.exp(-a))
    error = 2 * (second @ silu(a) - v)
    inner = (second.T @ error) * (sigmoid + a * sigmoid * (1 - sigmoid))
    return np.outer(inner, k), np.outer(error, silu(a))


def titans(k, v, q, alpha, eta, theta, first, second, *, chunk):
    """Titans' memory of one head, token by token (Behrouz et al. 2025, arXiv:2501.00663, eq. 9, 10, 13; section 3.2).

    Gradients are taken at the weights of the chunk's start; a token reads the memory after its own update.
    """
    pushes = [np.zeros_like(first), np.zeros_like(second)]
    weights, out = [first.copy(), second.copy()], []
    for t in range(len(k)):
        if t % chunk == 0:
            start = [weight.copy() for weight in weights]
        gradients = mlp_gradient(*start, k[t], v[t])
        pushes = [eta[t] * push - theta[t] * gradient for push, gradient in zip(pushes, gradients, strict=True)]
        weights = [(1 - alpha[t]) * weight + push for weight, push in zip(weights, pushes, strict=True)]
        out.append(weights[1] @ silu(weights[0] @ q[t]))
    return np.array(out), weights, pushes
