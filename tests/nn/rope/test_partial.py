"""Rules that rotate a part of each head."""

import numpy as np
import pytest
import torch

from aptlab.errors import ConfigError
from aptlab.nn.positions.rope import Partial, Proportional, Standard
from aptlab.nn.positions.rotary import build_rotary
from tests.reference import rope as reference
from tests.reference import rope_lengths as lengths


@pytest.mark.parametrize(("fraction", "head_dim", "dims"), [(0.25, 64, 16), (0.5, 128, 64), (0.4, 80, 32), (1.0, 8, 8)])
def test_partial_is_the_standard_rule_on_the_first_dims(fraction, head_dim, dims):
    """0.25 as GPT-NeoX, 0.4 of 80 as Phi-2: exponents over the dims that rotate."""
    rule = Partial(fraction=fraction)
    np.testing.assert_allclose(rule.inv_freq(head_dim), reference.standard(10_000.0, dims), rtol=1e-12)
    module, x = build_rotary(rule, head_dim=head_dim), np.random.default_rng(0).normal(size=head_dim)
    rotated = module.rotate(torch.tensor(x)[None, None, None], module.angles(torch.tensor([[77]])))[0, 0, 0].numpy()
    np.testing.assert_array_equal(rotated[dims:], x[dims:])
    expected = reference.rotate(x[:dims], 77, reference.standard(10_000.0, dims))
    np.testing.assert_allclose(rotated[:dims], expected, atol=1e-6)


@pytest.mark.parametrize("factor", [1.0, 8.0])
@pytest.mark.parametrize(("fraction", "head_dim"), [(0.25, 64), (0.75, 128), (1.0, 8), (0.3, 80)])
def test_proportional_keeps_the_exponents_of_the_whole_head(fraction, head_dim, factor):
    rule = Proportional(fraction=fraction, factor=factor)
    freq = rule.inv_freq(head_dim)
    assert len(freq) == head_dim // 2
    np.testing.assert_allclose(freq, lengths.proportional(10_000.0, fraction, factor, head_dim), rtol=1e-12)
    module, x = build_rotary(rule, head_dim=head_dim), np.random.default_rng(0).normal(size=head_dim)
    rotated = module.rotate(torch.tensor(x)[None, None, None], module.angles(torch.tensor([[77]])))[0, 0, 0].numpy()
    still = [i for i, f in enumerate(freq) if f == 0]
    np.testing.assert_allclose(rotated[still], x[still], atol=1e-7)


def test_a_whole_head_is_the_standard_rule():
    assert Partial(fraction=1.0).inv_freq(64) == Proportional(fraction=1.0).inv_freq(64) == Standard().inv_freq(64)


BAD = [
    (lambda: Partial(fraction=0.3).inv_freq(64), r"^fraction=0\.3 of head_dim=64 is 19 dims, .*fraction=0\.313"),
    (lambda: Partial(fraction=0.0).inv_freq(96), r"^fraction=0\.0 of head_dim=96 is 0 dims, .*fraction=0\.021"),
    (lambda: Partial(fraction=1.5), r"^fraction must be in \[0, 1\], got 1\.5"),
    (
        lambda: Proportional().inv_freq(4),
        r"^fraction=0\.25 of the 2 pairs of head_dim=4 rotates none; use fraction=",
    ),
    (lambda: Proportional(fraction=0.0).inv_freq(96), r"rotates none; use fraction=0\.021 or more, or rope=none"),
    (lambda: Proportional(factor=0.0), r"^factor must be a finite number > 0, got 0"),
    (lambda: Proportional().inv_freq(63), r"^head_dim=63 is not a positive even number"),
]


@pytest.mark.parametrize(("make", "message"), BAD, ids=[message for _, message in BAD])
def test_fractions_without_meaning_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


@pytest.mark.parametrize("head_dim", range(4, 257, 2))
def test_the_fraction_that_a_message_names_works(head_dim):
    for rule in (Partial(fraction=0.0), Proportional(fraction=0.0)):
        with pytest.raises(ConfigError) as error:
            rule.inv_freq(head_dim)
        named = float(str(error.value).split("use fraction=")[1].split()[0])
        rotary = [f for f in type(rule)(fraction=named).inv_freq(head_dim) if f > 0]
        assert len(rotary) == 1
