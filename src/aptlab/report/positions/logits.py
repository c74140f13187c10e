"""Expected logits under a rule, exactly in float64.

Legend: X pairs of tokens (query at m, key at n), P pairs of dims, S samples.

For a query and a key of unit norm with the same content, drawn evenly from the sphere, the expected logit is
    E q·R q = T / D · (2 sum_i w_i cos(phi_i) + dims that do not rotate)
with phi_i the angle between both tokens, w_i the sizes that the rule gives them and T its temperature.
"""

from __future__ import annotations

import numpy as np

from aptlab.report.positions.rotary_parts import Array, RotaryPart, compute_text_angles

STARTS = 8  # keys' positions over which rules that are not relative are averaged


def compute_pair_angles(
    part: RotaryPart, m_X: Array, n_X: Array, length: int, *, text: bool = False
) -> tuple[Array, Array]:
    """Angle and size [X, P] of the product of each pair; `text` reads positions as those of a text."""
    look_up = compute_text_angles if text else RotaryPart.angles
    query, query_size = look_up(part, m_X, length)
    key, key_size = look_up(part, n_X, length)
    size = query_size * key_size
    decay = part.decay()
    if (decay != 1).any():
        size = size * decay ** np.abs(np.asarray(m_X) - np.asarray(n_X))[:, None]
    return query - key, size


def compute_similarity(part: RotaryPart, m_X: Array, n_X: Array, length: int, *, text: bool = False) -> Array:
    """[X] expected logit of equal content of unit norm."""
    angle_XP, size_XP = compute_pair_angles(part, m_X, n_X, length, text=text)
    dims = 2 * angle_XP.shape[1] + part.still
    mean_X = (2 * (size_XP * np.cos(angle_XP)).sum(1) + part.still) / dims
    return mean_X * part.temperatures(m_X, length)


def choose_key_starts(part: RotaryPart) -> Array:
    """Positions of keys to average over: one is enough where only the distance counts."""
    return np.arange(1 if part.rule.relative else STARTS)


def average_by_distance(part: RotaryPart, distances_X: Array, length: int) -> Array:
    """[X] `compute_similarity` at each distance, averaged over the first positions of keys."""
    found = [
        compute_similarity(part, distances_X + start, np.full_like(distances_X, start), length)
        for start in choose_key_starts(part)
    ]
    return np.mean(found, axis=0)


def sample_pair_shares(part: RotaryPart, samples: int, seed: int) -> Array:
    """[S, P + 1] share of a random unit vector's square in each pair, and in what does not rotate."""
    random = np.random.default_rng(seed)
    dims = 2 * len(part.pairs) + part.still
    squares = random.standard_normal((samples, dims)) ** 2
    squares /= squares.sum(1, keepdims=True)
    rotated = squares[:, : 2 * len(part.pairs)].reshape(samples, -1, 2).sum(2)
    return np.column_stack([rotated, squares[:, 2 * len(part.pairs) :].sum(1)])


def compute_random_logits(part: RotaryPart, shares_SP: Array, distances_X: Array, length: int) -> Array:
    """[S, X] logits of random unit vectors with themselves, at distances from the first token."""
    angle_XP, size_XP = compute_pair_angles(part, distances_X, np.zeros_like(distances_X), length)
    kept_XP = np.column_stack([size_XP * np.cos(angle_XP), np.ones(len(distances_X))])
    return shares_SP @ kept_XP.T * part.temperatures(distances_X, length)
