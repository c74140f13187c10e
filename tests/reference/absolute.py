"""Absolute positions in float64 with loops. Nothing of aptlab is imported."""

import math

import numpy as np


def sinusoid(position, dim, base):
    """PE(n, 2i) = sin(n / base^(2i/C)), PE(n, 2i + 1) = cos(...) (Vaswani et al. 2017, arXiv:1706.03762, 3.5).

    The angle is reduced with more digits than float64 has where the position is large: exact integer times a
    frequency in 80-bit floats.
    """
    out = np.zeros(dim)
    for i in range(dim // 2):
        theta = np.longdouble(base) ** (np.longdouble(-2 * i) / np.longdouble(dim))
        angle = float(np.fmod(np.longdouble(position) * theta, 2 * np.longdouble(math.pi)))
        out[2 * i], out[2 * i + 1] = math.sin(angle), math.cos(angle)
    return out
