"""Which of many proposals are worth measuring, guessed from what has been measured. numpy only.

A Gaussian process (Rasmussen and Williams 2006, algorithm 2.1) over the logarithms of the factors predicts the
logarithm of the score; proposals with the lowest mean minus some deviations are taken, which costs no tokens at all.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from aptlab.search.space import Factors

SCALES = (0.25, 0.5, 1.0, 2.0, 4.0)  # of the kernel, in units of the spread of the measured factors
NOISES = (1e-3, 1e-2, 1e-1)  # variance of the estimates around the surface, of the scores' variance
MOST = 256  # measured candidates that are used: the best ones
BOLDNESS = (0.5, 1.0, 2.0)  # deviations that are subtracted, in turn: to improve what is good, and to look elsewhere
TINY = 1e-9


def select_promising(
    proposals: Sequence[Factors], count: int, measured: Sequence[Factors], scores: Sequence[float]
) -> list[Factors]:
    """The `count` proposals that look best, best first; the first ones where nothing can be told."""
    known = sorted((score, factors) for factors, score in zip(measured, scores) if np.isfinite(score))[:MOST]
    if len(known) < 8 or len(proposals) <= count:
        return list(proposals[:count])
    x_ND = np.log2([factors for _, factors in known])
    y_N = np.log(np.array([score for score, _ in known]) + TINY)
    mean_M, deviation_M = predict_scores(x_ND, y_N, np.log2(proposals))
    chosen: dict[int, None] = {}
    for number in range(count):
        hope_M = mean_M - BOLDNESS[number % len(BOLDNESS)] * deviation_M
        hope_M[list(chosen)] = np.inf
        chosen[int(np.argmin(hope_M))] = None
    return [proposals[i] for i in chosen]


def predict_scores(x_ND: np.ndarray, y_N: np.ndarray, at_MD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation at M places, with the scale and noise of the largest marginal likelihood."""
    spread = np.sqrt(x_ND.var(0).sum()) + TINY
    y_mean, y_scale = y_N.mean(), y_N.std() + TINY
    z_N = (y_N - y_mean) / y_scale
    best = None
    for scale in SCALES:
        kernel_NN = compute_matern_kernel(compute_distances(x_ND, x_ND) / (scale * spread))
        for noise in NOISES:
            root_NN = np.linalg.cholesky(kernel_NN + noise * np.eye(len(z_N)))
            weights_N = np.linalg.solve(root_NN.T, np.linalg.solve(root_NN, z_N))
            fit = -0.5 * z_N @ weights_N - np.log(np.diag(root_NN)).sum()
            if best is None or fit > best[0]:
                best = (fit, scale, root_NN, weights_N)
    assert best is not None
    _, scale, root_NN, weights_N = best
    cross_NM = compute_matern_kernel(compute_distances(x_ND, at_MD) / (scale * spread))
    left_NM = np.linalg.solve(root_NN, cross_NM)
    variance_M = np.maximum(1 - (left_NM**2).sum(0), 0)
    return y_mean + y_scale * (cross_NM.T @ weights_N), y_scale * np.sqrt(variance_M)


def compute_distances(a_ND: np.ndarray, b_MD: np.ndarray) -> np.ndarray:
    """Euclidean distances [N, M]."""
    squares = (a_ND**2).sum(1)[:, None] + (b_MD**2).sum(1) - 2 * a_ND @ b_MD.T
    return np.sqrt(np.maximum(squares, 0))


def compute_matern_kernel(r: np.ndarray) -> np.ndarray:
    """Matern kernel of smoothness 5/2."""
    t = np.sqrt(5) * r
    return (1 + t + t**2 / 3) * np.exp(-t)
