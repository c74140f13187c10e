"""Errors of far positions against loops in Python floats, and how bytes are counted."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from aptlab.nn.positions.rope import Standard
from aptlab.nn.positions.rotary import RotaryEmbedding
from aptlab.testing.precision import (
    FAR,
    POSITIONS,
    AllocationCounter,
    compute_exact_scores,
    compute_score_errors,
    count_module_bytes,
    make_far_positions,
    make_unit_vectors,
    measure_errors_at,
    rotate_by_angles,
)

THETA = (1.0, 0.1, 0.01)


def looped(q, k, m, n, layout, decay=None):
    """One score from the definition, in Python floats; dims beyond the pairs stay."""
    pairs, total = len(THETA), 0.0
    for i, theta in enumerate(THETA):
        a, b = (i, i + pairs) if layout == "half" else (2 * i, 2 * i + 1)
        cos, sin = math.cos((m - n) * theta), math.sin((m - n) * theta)
        part = (q[a] * k[a] + q[b] * k[b]) * cos + (q[a] * k[b] - q[b] * k[a]) * sin
        total += part * (1.0 if decay is None else decay[i] ** max(m - n, 0))
    return (total + sum(q[j] * k[j] for j in range(2 * pairs, len(q)))) / math.sqrt(len(q))


@pytest.mark.parametrize("decay", [None, (0.9, 0.99, 0.999)])
@pytest.mark.parametrize("layout", ["half", "interleaved"])
def test_exact_scores_are_the_definition(layout, decay):
    q, k = (x[:6].double() for x in make_unit_vectors(64, 8))
    places = torch.tensor([3, 5, 100, 101, 4000, 4003])
    decay_P = None if decay is None else torch.tensor(decay)
    got = compute_exact_scores(q, k, places, THETA, layout=layout, factor=2.0, decay_P=decay_P)
    decay = None if decay is None else decay_P.tolist()
    for t, m in enumerate(places.tolist()):
        for s, n in enumerate(places.tolist()):
            expected = 2 * looped(q[t].tolist(), k[s].tolist(), m, n, layout, decay)
            assert got[t, s].item() == pytest.approx(expected, abs=1e-9)


def test_rotating_keeps_the_dims_that_have_no_pair_and_scales_by_the_amplitude():
    x, angles = torch.arange(1.0, 7.0, dtype=torch.float64).unsqueeze(0), torch.zeros(1, 2, dtype=torch.float64)
    assert torch.equal(rotate_by_angles(x, angles, "half"), x)
    half = rotate_by_angles(x, angles, "interleaved", torch.full((1, 2), 0.5, dtype=torch.float64))
    assert half.tolist() == [[0.5, 1.0, 1.5, 2.0, 5.0, 6.0]]


def test_places_end_where_they_say_and_never_precede_the_first():
    for position in POSITIONS:
        places = make_far_positions(position)
        assert len(places) == 64
        assert int(places.min()) >= 0
        assert int(places.max()) == position
        assert bool((places.diff() > 0).all())
    assert make_far_positions(FAR, 3).shape == (64, 3)
    assert int(make_far_positions(FAR, 3).sum(-1).max()) <= FAR


class Angles:
    """Scores of the standard rule with angles in some dtype."""

    head_dim, streams = 16, 1

    def __init__(self, dtype):
        self.theta, self.dtype = torch.tensor(Standard().inv_freq(16), dtype=torch.float64), dtype

    def scores(self, q_TD, k_TD, positions):
        angles = positions.to(self.dtype).unsqueeze(-1) * self.theta.to(self.dtype)
        q, k = (rotate_by_angles(x.double(), angles.double(), "half") for x in (q_TD, k_TD))
        return q @ k.mT / 4

    def exact(self, q_TD, k_TD, positions):
        return compute_exact_scores(q_TD, k_TD, positions, self.theta, layout="half")


def test_errors_of_float32_products_grow_with_position_and_those_of_float64_do_not():
    near, far = (measure_errors_at(Angles(torch.float32), position) for position in (2_048, FAR))
    assert near[1] < 1e-3 < 0.1 < far[1]
    assert near[0] < near[1]
    assert measure_errors_at(Angles(torch.float64), FAR)[1] < 1e-8


def test_scores_after_the_query_do_not_count_and_large_ones_count_relatively():
    expected = torch.tensor([[1.0, 0.0], [-200.0, 2.0]])
    got = torch.tensor([[1.5, 99.0], [-201.0, 2.0]])
    assert compute_score_errors(got, expected).tolist() == [0.5, 1 / 200, 0.0]


def test_held_bytes_are_parameters_buffers_and_plain_tensors_once():
    module = nn.Linear(4, 2)
    module.register_buffer("table", torch.zeros(10))
    module.kept = torch.zeros(5, dtype=torch.float64)
    module.again = module.kept
    assert count_module_bytes(module) == 4 * (8 + 2) + 40 + 40


def test_tables_of_ten_million_positions_take_4_mb():
    tables, frequencies = 4 * 4096 * 64 * 4, 64 * 8
    assert count_module_bytes(RotaryEmbedding(Standard(), head_dim=128)) == tables + frequencies


def test_made_counts_what_operations_write_and_no_views():
    x = torch.zeros(8, 4)
    with AllocationCounter() as made:
        y = x.view(4, 8).transpose(0, 1)
        y + 1
    assert made.bytes == 8 * 4 * 4
