"""Positions of two and three numbers: modules against literal matrices, sections, text, and heads that do not fit."""

import numpy as np
import pytest
import torch

from aptlab.errors import ConfigError
from aptlab.nn.positions.rope import Axial2D, Axial3D, Kron2D, Kron3D, Mixed2D, MRope, MRopeInterleaved, Standard
from aptlab.nn.positions.rotary import build_rotary
from tests.reference import rope as reference
from tests.reference import rope_planes as planes

PLACES = [(0, 0, 0), (3, 0, 0), (0, 5, 0), (7, 2, 9), (2, 11, 4095), (40, 63, 17)]


def rotate_rows(rule, x, places, head_dim):
    """Rows of x [T, D] as the rule's module rotates them at places [T, N]."""
    module = build_rotary(rule, head_dim=head_dim)
    angles = module.angles(torch.tensor([places]))
    heads = torch.tensor(x).expand(1, angles.cos.shape[1], -1, -1)  # a query head and a key head where heads differ
    with torch.no_grad():
        return module.rotate(heads, angles).double()[0, 0].numpy()


def vectors(head_dim, seed=0):
    return np.random.default_rng(seed).normal(size=(len(PLACES), head_dim))


@pytest.mark.parametrize(("rule", "streams", "head_dim"), [(Axial2D, 2, 16), (Axial2D, 2, 64), (Axial3D, 3, 12)])
def test_axial_rules_rotate_a_part_of_the_head_by_each_number(rule, streams, head_dim):
    x, places = vectors(head_dim), [place[:streams] for place in PLACES]
    got = rotate_rows(rule(layout="interleaved"), x, places, head_dim)
    expected = [planes.axial(10_000.0, head_dim, place) @ row for place, row in zip(places, x)]
    np.testing.assert_allclose(got, expected, atol=2e-6)


@pytest.mark.parametrize(
    ("rule", "streams", "head_dim"), [(Kron2D, 2, 4), (Kron2D, 2, 16), (Kron3D, 3, 8), (Kron3D, 3, 32)]
)
def test_kron_rules_are_the_literal_kronecker_product_after_a_change_of_basis(rule, streams, head_dim):
    """Q' (R_h (x) R_w) Q is what the module does, with one orthogonal Q for all places, so logits agree."""
    places = [place[:streams] for place in PLACES]
    basis = planes.kron_basis(streams, head_dim // 2**streams)
    np.testing.assert_allclose(basis.T @ basis, np.eye(head_dim), atol=1e-15)
    q, k = vectors(head_dim, 0), vectors(head_dim, 1)
    literal = [[planes.kron(10_000.0, head_dim, place) @ row for place, row in zip(places, x)] for x in (q, k)]
    ours = [rotate_rows(rule(layout="interleaved"), x @ basis, places, head_dim) for x in (q, k)]
    np.testing.assert_allclose(ours[0], np.array(literal[0]) @ basis, atol=2e-6)
    np.testing.assert_allclose(ours[0] @ ours[1].T, np.array(literal[0]) @ np.array(literal[1]).T, atol=1e-5)


@pytest.mark.parametrize("rule", [Kron2D(), Axial2D(), Mixed2D()], ids=repr)
def test_logits_depend_on_the_differences_of_both_numbers(rule):
    q, k = vectors(16, 0)[:1], vectors(16, 1)[:1]

    def logit(rows, columns):
        queries = rotate_rows(rule, q, [(5 + rows, 3 + columns)], 16)
        return queries @ rotate_rows(rule, k, [(2 + rows, 8 + columns)], 16).T

    for shift in ((50, 9), (0, 4000), (4000, 0)):
        np.testing.assert_allclose(logit(*shift), logit(0, 0), atol=2e-6)
    assert abs(logit(0, 0) - rotate_rows(rule, q, [(6, 3)], 16) @ rotate_rows(rule, k, [(2, 8)], 16).T) > 1e-3


SECTIONS = [(MRope, (16, 24, 24), 128), (MRope, (2, 3, 3), 16), (MRope, (8, 0, 0), 16)]
SECTIONS += [
    (MRopeInterleaved, (24, 20, 20), 128),
    (MRopeInterleaved, (4, 2, 2), 16),
    (MRopeInterleaved, (3, 3, 2), 16),
]


@pytest.mark.parametrize(("rule", "sections", "head_dim"), SECTIONS, ids=str)
def test_sections_take_their_own_number(rule, sections, head_dim):
    of = planes.mrope_streams if rule is MRope else planes.mrope_interleaved_streams
    made = rule(sections=list(sections))
    assert [row.index(1) for row in made.combine(head_dim)] == of(sections)
    assert all(sorted(row) == [0, 0, 1] for row in made.combine(head_dim))
    module, theta = build_rotary(made, head_dim=head_dim), reference.standard(10_000.0, head_dim)
    angles = module.angles(torch.tensor([PLACES]))
    for t, place in enumerate(PLACES):
        expected = [place[stream] * theta[i] for i, stream in enumerate(of(sections))]
        np.testing.assert_allclose(angles.cos[0, 0, t], np.cos(expected), atol=4e-7)
        np.testing.assert_allclose(angles.sin[0, 0, t], np.sin(expected), atol=4e-7)


@pytest.mark.parametrize(
    ("rule", "head_dim", "counts"),
    [
        (MRope(), 128, (16, 24, 24)),
        (MRope(), 64, (8, 12, 12)),
        (MRopeInterleaved(), 128, (24, 20, 20)),
        (MRopeInterleaved(), 64, (12, 10, 10)),
    ],
    ids=repr,
)
def test_sections_follow_the_head_where_none_are_given(rule, head_dim, counts):
    """16 : 24 : 24 of Qwen2-VL, 24 : 20 : 20 of Qwen3-VL; every pair is counted where it is used."""
    assert rule.counts(head_dim) == counts
    used = [row.index(1) for row in rule.combine(head_dim)]
    assert tuple(used.count(stream) for stream in range(3)) == counts


@pytest.mark.parametrize("rule", [MRope(), MRopeInterleaved(), MRope(layout="interleaved")], ids=repr)
def test_mrope_on_text_is_the_standard_rule(rule):
    positions = torch.tensor([[0, 1, 2, 4095, 4096, 1_000_000]])
    assert all(stream is positions for stream in rule.spread(positions))
    mine, plain = (build_rotary(each, head_dim=64).angles(positions) for each in (rule, Standard()))
    np.testing.assert_allclose(mine.cos, plain.cos, atol=1e-7)
    np.testing.assert_allclose(mine.sin, plain.sin, atol=1e-7)


def test_text_is_read_as_rows_of_a_picture_or_frames_of_a_film():
    positions = torch.arange(30).unsqueeze(0)
    rows, columns = Axial2D(width=7).spread(positions)
    assert torch.equal(rows * 7 + columns, positions)
    assert columns.max() == 6
    time, height, width = Axial3D(grid=[2, 3]).spread(positions)
    assert torch.equal(time * 6 + height * 3 + width, positions)
    assert (height.max(), width.max()) == (1, 2)
    assert [each[0, 8].item() for each in MRope(grid=(2, 3)).spread(positions)] == [1, 0, 2]


def test_mixed_rotation_rotates_by_a_sum_of_both_numbers():
    module = build_rotary(Mixed2D(), head_dim=8, heads=2, kv_heads=1)
    weights = module.weight.detach().double().numpy()  # [2, key heads, P]
    assert weights.shape == (2, 1, 4)
    np.testing.assert_allclose(np.hypot(*weights[:, 0]), reference.standard(10_000.0, 8), rtol=1e-6)
    places = [(0, 0), (3, 4), (10, 2)]
    angles = module.angles(torch.tensor([places]))
    for t, place in enumerate(places):
        expected = [planes.mixed_angle(place, weights[:, 0, pair]) for pair in range(4)]
        np.testing.assert_allclose(angles.cos[0, 0, t].detach(), np.cos(expected), atol=1e-6)


BAD = [
    (lambda: Axial2D().inv_freq(66), r"^head_dim=66 is not divisible by 4, and axial2d .* nearest: 64, 68"),
    (lambda: Axial2D().inv_freq(2), r"^head_dim=2 is not divisible by 4, .* nearest: 4"),
    (lambda: Kron2D().inv_freq(66), r"^head_dim=66 is not divisible by 4, and kron2d .* nearest: 64, 68"),
    (lambda: Kron3D().inv_freq(60), r"^head_dim=60 is not divisible by 8, and kron3d .* nearest: 56, 64"),
    (lambda: Axial3D().inv_freq(4), r"^head_dim=4: three axes need an even head of at least 6 dims"),
    (lambda: Axial3D().inv_freq(65), r"^head_dim=65: three axes need an even head"),
    (lambda: MRope().inv_freq(65), r"^head_dim=65 is not a positive even number"),
    (
        lambda: MRope(sections=(16, 24, 24)).inv_freq(64),
        r"^sections=\[16, 24, 24\] must be three numbers of pairs with sum 32 .*; null takes 8, 12, 12",
    ),
    (lambda: MRope(sections=(16, 16)).inv_freq(64), r"^sections=\[16, 16\] must be three numbers of pairs"),
    (lambda: MRope(sections=(40, -4, -4)).inv_freq(64), r"^sections=\[40, -4, -4\] must be three numbers"),
    (
        lambda: MRopeInterleaved(sections=(16, 24, 24)).combine(128),
        r"^sections=\[16, 24, 24\]: .* of 64 pairs, 21 and 21 pairs at most; use \[24, 20, 20\] or rope=mrope",
    ),
    (lambda: Axial2D(width=0), r"^width must be a finite number >= 1, got 0"),
    (lambda: Axial3D(grid=(4,)), r"^grid=\[4\] must be \[height, width\] of a frame, such as \[16, 16\]"),
    (lambda: Axial3D(grid=(4, 0)), r"^grid=\[4, 0\] must be \[height, width\] of a frame"),
    (lambda: Axial2D(width=None).spread(0), r"^width=null leaves text without height; set width, or give"),
    (lambda: Kron3D(grid=None).spread(0), r"^grid=null leaves text without a frame; set grid, or give pos"),
]


@pytest.mark.parametrize(("make", "message"), BAD, ids=[message for _, message in BAD])
def test_heads_and_grids_that_do_not_fit_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
