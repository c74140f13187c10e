"""Analyses of positions written out: loops and whole matrices in float64, from the papers, with no aptlab."""

from __future__ import annotations

import cmath
import math

import numpy as np


def frequencies(base: float, dims: int) -> list[float]:
    return [base ** (-2 * i / dims) for i in range(dims // 2)]


def abel_mean(theta: list[float], distance: int) -> float:
    """Mean over j = 1 .. P of |sum over i < j of exp(1j distance theta_i)| (Su et al. 2021, section 3.4.3)."""
    total, absolute = 0j, 0.0
    for one in theta:
        total += cmath.exp(1j * distance * one)
        absolute += abs(total)
    return absolute / len(theta)


def abel_sum_bound(theta: list[float], h: list[complex], distance: int) -> tuple[float, float]:
    """(|logit|, its bound) of eq. 37: h_i is the product of query and key in pair i, h_P = 0."""
    logit = sum(one * cmath.exp(1j * distance * t) for one, t in zip(h, theta)).real
    steps = [abs(b - a) for a, b in zip(h, [*h[1:], 0j])]
    return abs(logit), max(steps) * abel_mean(theta, distance) * len(theta)


def rotation(theta: list[float], position: float, dims: int) -> np.ndarray:
    """R of eq. 15 with neighbouring dims as pairs; dims without a pair stay."""
    matrix = np.eye(dims)
    for i, one in enumerate(theta):
        c, s = math.cos(position * one), math.sin(position * one)
        matrix[2 * i : 2 * i + 2, 2 * i : 2 * i + 2] = [[c, -s], [s, c]]
    return matrix


def mean_logit(theta: list[float], m: int, n: int, dims: int) -> float:
    """E of (R_m q)·(R_n q) over unit q drawn evenly from the sphere: the trace of R_m^T R_n over the dims."""
    return float(np.trace(rotation(theta, m, dims).T @ rotation(theta, n, dims))) / dims


def covered(theta: float, last: int, points: int = 100_000) -> np.ndarray:
    """Which of many arcs of the circle a pair passes on its way from 0 to theta · last."""
    arcs = np.arange(points) * 2 * math.pi / points
    return arcs <= theta * last


def overshoot(trained: float, original: int, theta: float, distance: int, points: int = 100_000) -> float:
    """Largest circular distance from an angle covered now to the nearest angle covered in training."""
    before, now = covered(trained, original, points), covered(theta, distance, points)
    arcs = np.arange(points) * 2 * math.pi / points
    end = arcs[before].max()
    new = arcs[now & ~before]
    if before.all() or not len(new):
        return 0.0
    return float(np.minimum(new - end, 2 * math.pi - new).max())


def first_negative(base: float, dims: int, longest: int) -> int:
    """The first distance at which sum_i cos(m theta_i) < 0, or `longest` (Men et al. 2024, arXiv:2405.14591)."""
    theta = frequencies(base, dims)
    for m in range(longest):
        if sum(math.cos(m * one) for one in theta) < 0:
            return m
    return longest
