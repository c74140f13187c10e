"""Herding: exemplars whose mean stays near the mean of their class. Legend: N samples, D features."""

from __future__ import annotations

import numpy as np


def rank_by_herding(features_ND: np.ndarray, count: int, *, normalize: bool = True) -> np.ndarray:
    """Samples in the order in which herding takes them, at most `count`, int64 (Rebuffi et al. 2017, arXiv:1611.07725).

    p_k = argmin_x || mu - (phi(x) + sum_{j<k} phi(p_j)) / k ||  (algorithm 4), the first of equals. `normalize` takes
    all features, mu and the running means at unit length, as the paper says of iCaRL (section 2); without it this is
    what Avalanche does. The first m of a ranking are the exemplars for m. Computed in float64.
    """
    phi = np.asarray(features_ND, dtype=np.float64)
    phi = scale_to_unit(phi) if normalize else phi
    center = phi.mean(axis=0)
    center = scale_to_unit(center) if normalize else center
    total, left = np.zeros(phi.shape[1]), np.ones(len(phi), dtype=bool)
    order = []
    for k in range(1, min(count, len(phi)) + 1):
        means = (phi + total) / k
        means = scale_to_unit(means) if normalize else means
        distances = np.square(center - means).sum(axis=1)
        chosen = int(np.argmin(np.where(left, distances, np.inf)))
        order.append(chosen)
        left[chosen] = False
        total += phi[chosen]
    return np.asarray(order, dtype=np.int64)


def scale_to_unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors along the last axis at length 1; a vector of zeros stays."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1.0)
