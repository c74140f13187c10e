"""Rotary frequencies and rotations in float64, written from the papers with loops. Nothing of aptlab is imported.

D head dim, P = D/2 pairs, i pair index, s = L'/L the stretch factor, L the original context.
"""

import math

import numpy as np


def standard(base, head_dim):
    """theta_i = base^(-2(i-1)/D), i = 1 .. D/2 (Su et al. 2021, arXiv:2104.09864, below eq. 15)."""
    return np.array([1.0 / math.pow(base, 2 * i / head_dim) for i in range(head_dim // 2)])


def linear(base, factor, head_dim):
    """Positions m become m·L/L', the same as frequencies over s (Chen et al. 2023, arXiv:2306.15595, eq. 4)."""
    return standard(base, head_dim) * (1.0 / factor)


def ntk(base, factor, head_dim):
    """b' = b · s^(|D|/(|D|-2)) (Peng et al. 2023, arXiv:2309.00071, eq. 16)."""
    return standard(base * math.pow(factor, head_dim / (head_dim - 2)), head_dim)


def wavelengths(base, head_dim):
    """lambda_i = 2 pi / theta_i = 2 pi b^(2i/|D|), the tokens of a full rotation (arXiv:2309.00071, eq. 13)."""
    return np.array([2 * math.pi * math.pow(base, 2 * i / head_dim) for i in range(head_dim // 2)])


def by_parts(base, factor, original_len, slow, fast, head_dim):
    """h(theta) = (1 - gamma(r))·theta/s + gamma(r)·theta with r = L/lambda, gamma from 0 at `slow` to 1 at `fast`
    (arXiv:2309.00071, eq. 17 to 19 with alpha = slow, beta = fast)."""
    out = []
    for theta, wavelength in zip(standard(base, head_dim), wavelengths(base, head_dim)):
        ratio = original_len / wavelength
        if ratio < slow:
            gamma = 0.0
        elif ratio > fast:
            gamma = 1.0
        else:
            gamma = (ratio - slow) / (fast - slow)
        out.append((1 - gamma) * theta / factor + gamma * theta)
    return np.array(out)


def ramp_ends(base, original_len, slow, fast, head_dim, truncate=True):
    """Pair indices between which the released YaRN code ramps: lambda_i = L/r solved for i, rounded outwards."""

    def index(rotations):
        return head_dim * math.log(original_len / (2 * math.pi * rotations)) / (2 * math.log(base))

    low, high = index(fast), index(slow)
    if truncate:
        low, high = math.floor(low), math.ceil(high)
    return max(low, 0), min(high, head_dim - 1)


def yarn(base, factor, original_len, slow, fast, head_dim, truncate=True):
    """The released code: a ramp that is linear in the pair index, from kept at `low` to divided at `high`."""
    low, high = ramp_ends(base, original_len, slow, fast, head_dim, truncate)
    if low == high:
        high = low + 0.001
    out = []
    for i, theta in enumerate(standard(base, head_dim)):
        divided = min(max((i - low) / (high - low), 0.0), 1.0)
        out.append(theta * (1 - divided) + theta / factor * divided)
    return np.array(out)


def llama3(base, factor, low, high, original_len, head_dim):
    """Wavelengths under L/high are kept, over L/low divided, between them mixed (Llama 3.1, arXiv:2407.21783)."""
    out = []
    for theta in standard(base, head_dim):
        wavelength = 2 * math.pi / theta
        if wavelength < original_len / high:
            out.append(theta)
        elif wavelength > original_len / low:
            out.append(theta / factor)
        else:
            smooth = (original_len / wavelength - low) / (high - low)
            out.append((1 - smooth) * theta / factor + smooth * theta)
    return np.array(out)


def yarn_logit_factor(factor):
    """1/t with sqrt(1/t) = 0.1 ln(s) + 1 (arXiv:2309.00071, eq. 22): queries and keys are scaled by sqrt(1/t) each."""
    return (0.1 * math.log(factor) + 1.0) ** 2


def rotate(x, position, theta):
    """Rotate pair (x_i, x_{i + P}) by position · theta_i (arXiv:2104.09864, eq. 34, in the half-split layout)."""
    pairs = len(theta)
    out = np.array(x, dtype=np.float64)
    for i in range(pairs):
        angle = float(position) * float(theta[i])
        cos, sin = math.cos(angle), math.sin(angle)
        a, b = float(x[i]), float(x[i + pairs])
        out[i] = a * cos - b * sin
        out[i + pairs] = a * sin + b * cos
    return out


def logits(q, k, q_positions, k_positions, theta):
    """q_m · k_n / sqrt(D) after rotation, [M, N] of q [M, D] and k [N, D]."""
    turned_q = np.stack([rotate(x, m, theta) for x, m in zip(q, q_positions)])
    turned_k = np.stack([rotate(x, n, theta) for x, n in zip(k, k_positions)])
    return turned_q @ turned_k.T / math.sqrt(q.shape[1])
