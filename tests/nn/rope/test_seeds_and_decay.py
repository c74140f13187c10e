"""xPos, and the seeds' formulas under their own names: logits of the modules against float64 loops."""

import math

import numpy as np
import pytest
import torch

from aptlab.errors import ConfigError
from aptlab.nn.positions.rope import (
    IRopeHeads,
    IRopePairs,
    IRopePhase,
    Learnable,
    LinearHarmonic,
    Mixed2D,
    Standard,
    XPos,
    XPosAngleDecay,
)
from aptlab.nn.positions.rotary import build_rotary
from tests.helpers import assert_agree
from tests.reference import rope as reference
from tests.reference import rope_seeds as seeds

DIMS = (8, 64, 128)


@pytest.mark.parametrize("head_dim", DIMS)
def test_frequencies_are_the_seeds(head_dim):
    assert_agree(LinearHarmonic().inv_freq(head_dim), seeds.harmonic(head_dim))
    assert_agree(IRopePairs().inv_freq(head_dim), seeds.over_pairs(head_dim))
    expected = [reference.standard(base, head_dim) for base in seeds.BASES]
    for rule in (IRopePhase(), IRopeHeads()):
        assert_agree(rule.regimes(head_dim), expected)
    for rule in (XPos(), XPosAngleDecay(), Learnable(), Mixed2D()):
        assert rule.inv_freq(head_dim) == Standard().inv_freq(head_dim)


@pytest.mark.parametrize(("head_dim", "tokens"), [(64, 396), (128, 798)])
def test_the_harmonic_rule_repeats_after_a_few_hundred_tokens(head_dim, tokens):
    assert 2 * math.pi / LinearHarmonic().inv_freq(head_dim)[-1] == pytest.approx(tokens, abs=0.5)


def test_the_phase_rule_takes_its_base_from_the_position():
    rule, module = IRopePhase(), build_rotary(IRopePhase(), head_dim=8)
    positions = torch.tensor([[0, 1, 2, 3, 4, 5, 1001, 1002]])
    assert rule.regime(positions, None).tolist() == [[0, 1, 2, 3, 0, 1, 1, 2]]
    angles = module.angles(positions)
    for t, position in enumerate(positions[0].tolist()):
        for pair in range(4):
            expected = seeds.phase_angle(position, pair, 8)
            assert angles.cos[0, 0, t, pair].item() == pytest.approx(math.cos(expected), abs=3e-7)
            assert angles.sin[0, 0, t, pair].item() == pytest.approx(math.sin(expected), abs=3e-7)


def test_heads_take_bases_in_turn():
    assert IRopeHeads().head_regimes(6) == (0, 1, 2, 3, 0, 1)
    assert IRopeHeads().head_regimes(1) == (0,)
    module = build_rotary(IRopeHeads(), head_dim=8, heads=8, kv_heads=4)
    angles = module.angles(torch.tensor([[0, 5]]))
    own = [reference.standard(base, 8) * 5 for base in seeds.BASES]
    for head, base in enumerate([0, 0, 1, 1, 2, 2, 3, 3, 0, 1, 2, 3]):  # query heads, then key heads
        np.testing.assert_allclose(angles.cos[0, head, 1].numpy(), np.cos(own[base]), atol=3e-7)


ZETAS = {"published": None, "angle": lambda theta: math.exp(-theta * 512 / 100)}


@pytest.mark.parametrize("zeta", ZETAS)
@pytest.mark.parametrize("head_dim", [8, 64])
def test_xpos_logits_fade_by_zeta_to_the_distance(zeta, head_dim):
    """Rotation and decay per token of distance give the paper's logit with its powers of absolute positions."""
    rule, rng = XPos(zeta=zeta), np.random.default_rng(0)
    decay = np.array(rule.decay(head_dim))
    assert len(decay) == head_dim // 2
    assert np.all((decay > 0) & (decay < 1))
    q, k, half = rng.normal(size=head_dim), rng.normal(size=head_dim), head_dim // 2
    for m, n in ((0, 0), (7, 3), (500, 20), (1024, 1024), (2000, 1990)):
        rotated = [reference.rotate(x, place, rule.inv_freq(head_dim)) for x, place in ((q, m), (k, n))]
        per_pair = rotated[0] * rotated[1]
        got = ((per_pair[:half] + per_pair[half:]) * decay ** (m - n)).sum()
        expected = seeds.xpos_logit(q, k, m, n, base=10_000.0, gamma=0.4, scale_base=512.0, zeta=ZETAS[zeta])
        assert got == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_xpos_has_the_numbers_of_the_released_code():
    """(2i + 0.4 D) / (1.4 D) over 512 tokens: 0.4 / 1.4 for the first pair, and the last is nearly kept."""
    decay = XPos().decay(128)
    assert decay[0] ** 512 == pytest.approx(0.4 / 1.4, rel=1e-12)
    assert decay[-1] ** 512 == pytest.approx((126 + 0.4 * 128) / (1.4 * 128), rel=1e-12)
    assert_agree(XPos(gamma=1.0, scale_base=64.0).decay(8), [((i / 4 + 1) / 2) ** (1 / 64) for i in range(4)])


def test_xpos_by_angle_is_the_seeds_decay_with_the_opposite_sign_on_keys():
    theta = np.array(Standard().inv_freq(64))
    assert_agree(XPos(zeta="angle").decay(64), np.exp(-theta / 100), rel=1e-14)
    assert_agree(XPosAngleDecay().amplitude(64), theta / 100, rel=1e-14)


def test_the_seeds_xpos_shrinks_with_both_positions():
    rule, rng = XPosAngleDecay(), np.random.default_rng(0)
    module, q, k = build_rotary(rule, head_dim=8), rng.normal(size=8), rng.normal(size=8)
    for m, n in ((0, 0), (9, 4), (300, 100)):
        rotated = [
            module.rotate(torch.tensor(x)[None, None, None], module.angles(torch.tensor([[place]]))).double().numpy()
            for x, place in ((q, m), (k, n))
        ]
        expected = seeds.angle_decay_logit(q, k, m, n, base=10_000.0)
        assert (rotated[0] * rotated[1]).sum() == pytest.approx(expected, abs=3e-6)
    assert math.exp(-1000 * rule.amplitude(64)[0]) == pytest.approx(4.5e-5, abs=5e-7)  # the fastest pair at 1000


def test_learned_frequencies_begin_with_the_standard_ones():
    module, plain = build_rotary(Learnable(), head_dim=8), build_rotary(Standard(), head_dim=8)
    positions = torch.tensor([[0, 1, 77, 4097]])
    np.testing.assert_allclose(module.angles(positions).cos.detach(), plain.angles(positions).cos, atol=3e-7)
    assert module.weight.requires_grad
    assert not build_rotary(Learnable(frozen=True), head_dim=8).weight.requires_grad
    with torch.no_grad():
        module.weight.fill_(math.log(2.0) / 0.1)  # exp(pace a) = 2
    doubled = plain.angles(2 * positions)
    np.testing.assert_allclose(module.angles(positions).cos.detach(), doubled.cos, atol=2e-5)


BAD = [
    (lambda: XPos(zeta="exp"), r"^zeta='exp'; allowed: published, angle"),
    (lambda: XPos(gamma=0.0), r"^gamma must be a finite number > 0, got 0"),
    (lambda: XPosAngleDecay(rate=0.0), r"^rate must be a finite number > 0, got 0"),
    (lambda: Learnable(pace=0.0), r"^pace must be a finite number > 0, got 0"),
    (lambda: IRopePhase(bases=(0.5,)), r"^bases=\[0\.5\] must be numbers larger than 1"),
    (lambda: IRopePairs().inv_freq(7), r"^head_dim=7 is not a positive even number"),
    (lambda: LinearHarmonic().inv_freq(7), r"^head_dim=7 is not a positive even number"),
    (lambda: XPos().inv_freq(7), r"^head_dim=7 is not a positive even number"),
]


@pytest.mark.parametrize(("make", "message"), BAD, ids=[message for _, message in BAD])
def test_values_without_meaning_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
