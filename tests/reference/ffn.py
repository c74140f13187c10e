"""Feed-forward layers in float64, one token at a time. Nothing of aptlab is imported."""

import math

import numpy as np


def linear(x, weight, bias=None):
    """W x + b."""
    out = np.asarray(weight, dtype=np.float64) @ np.asarray(x, dtype=np.float64)
    return out if bias is None else out + np.asarray(bias, dtype=np.float64)


def swiglu(x, gate, up, down, gate_bias=None, up_bias=None, down_bias=None):
    """W2 (swish(W x) ⊗ V x), swish(z) = z sigmoid(z) (Shazeer 2020, arXiv:2002.05202, eq. 6)."""
    gates = np.array([z / (1 + math.exp(-z)) for z in linear(x, gate, gate_bias)])
    return linear(gates * linear(x, up, up_bias), down, down_bias)


def gelu_exact(z):
    """z Phi(z) (Hendrycks & Gimpel 2016, arXiv:1606.08415, section 2)."""
    return z * 0.5 * (1 + math.erf(z / math.sqrt(2)))


def gelu_tanh(z):
    """0.5 z (1 + tanh(sqrt(2/pi) (z + 0.044715 z^3))), the paper's approximation."""
    return 0.5 * z * (1 + math.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))


def geglu(x, gate, up, down, gate_bias=None, up_bias=None, down_bias=None, *, curve=gelu_exact):
    """W2 (gelu(W x) ⊗ V x) (Shazeer 2020, arXiv:2002.05202, eq. 6)."""
    gates = np.array([curve(z) for z in linear(x, gate, gate_bias)])
    return linear(gates * linear(x, up, up_bias), down, down_bias)


def swiglu_clamped(x, gate, up, down, gate_bias=None, up_bias=None, down_bias=None, *, alpha=1.702, limit=7.0):
    """W2 (g sigmoid(alpha g) ⊗ (u + 1)), g = min(W x, limit), u = V x cut to [-limit, limit].

    The released gpt-oss code (OpenAI 2025, arXiv:2508.10925, which names a SwiGLU with clamping and a residual).
    """
    gates = [min(z, limit) for z in linear(x, gate, gate_bias)]
    values = [max(-limit, min(z, limit)) for z in linear(x, up, up_bias)]
    mixed = [g / (1 + math.exp(-alpha * g)) * (u + 1) for g, u in zip(gates, values, strict=True)]
    return linear(np.array(mixed), down, down_bias)


def gelu(x, up, down, up_bias=None, down_bias=None):
    """W2 gelu(W1 x), gelu(z) = z Phi(z) (Hendrycks & Gimpel 2016, arXiv:1606.08415, section 2)."""
    inner = np.array([gelu_exact(z) for z in linear(x, up, up_bias)])
    return linear(inner, down, down_bias)
