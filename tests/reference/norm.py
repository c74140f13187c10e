"""Norms in float64. Nothing of aptlab is imported."""

import math

import numpy as np


def rms_norm(x, weight, eps=1e-5):
    """x_i / sqrt(mean(x²) + eps) · g_i, one vector (Zhang & Sennrich 2019, arXiv:1910.07467, eq. 4)."""
    rms = math.sqrt(sum(float(v) ** 2 for v in x) / len(x) + eps)
    return np.array([float(v) / rms * float(g) for v, g in zip(x, weight)])


def layer_norm(x, weight, bias=None, eps=1e-5):
    """(x_i - mu) / sqrt(var + eps) · g_i + b_i, one vector (Ba et al. 2016, arXiv:1607.06450, eq. 4)."""
    mean = sum(float(v) for v in x) / len(x)
    variance = sum((float(v) - mean) ** 2 for v in x) / len(x)
    out = np.array([(float(v) - mean) / math.sqrt(variance + eps) * float(g) for v, g in zip(x, weight)])
    return out if bias is None else out + np.asarray(bias, dtype=np.float64)
