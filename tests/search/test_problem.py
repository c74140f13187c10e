"""What a search begins from, for checkpoints that rotate whole heads and for those that rotate a part of each."""

import math

import numpy as np
import pytest

from aptlab.errors import ConfigError
from aptlab.nn.positions.rope import NTK, Linear, LongRoPE, Partial, Proportional, Standard, YaRN
from aptlab.search.problem import make_search_problem

NODE = {"_target_": "aptlab.nn.positions.rope.LongRoPE", "original_len": 128, "factor": 4.0}
SAME = {"base": 500.0, "layout": "interleaved"}
TRAINED = Partial(fraction=0.5, **SAME)


def problem(trained, **given):
    return make_search_problem(NODE | SAME | given, trained, head_dim=64, target=512)


def test_a_part_of_each_head_is_searched_as_a_smaller_head():
    for trained in (TRAINED, LongRoPE(fraction=0.5, original_len=64, **SAME)):
        found = problem(trained, fraction=0.5)
        assert (found.rule.base, found.rule.layout, found.rule.fraction) == (500.0, "interleaved", 0.5)
        assert found.head_dim == 32
        assert {start.space.pairs for start in found.starts(0.01)} == {16}
        assert len(found.found((2.0,) * 16, 3).inv_freq(64)) == 16
    assert problem(Standard(**SAME)).head_dim == 64


def test_baselines_of_a_part_are_those_of_a_head_of_that_size():
    found = problem(TRAINED, fraction=0.5)
    part, whole = found.baselines(), {"linear": Linear, "ntk": NTK, "yarn": YaRN}
    for name, rule in whole.items():
        lengths = {"original_len": 128} if rule is YaRN else {}
        expected = rule(factor=4.0, **SAME, **lengths)
        for frequencies in part[name].regimes(64):
            np.testing.assert_allclose(frequencies, expected.inv_freq(32), rtol=1e-12)
        assert all(math.isclose(mine, expected.temperature) for mine in part[name].temperatures())
    assert part["longrope guess"] == found.rule


@pytest.mark.parametrize(
    ("trained", "given", "rotated"), [(Standard(), {"fraction": 0.5}, (32, 16)), (Proportional(), {}, (8, 32))]
)
def test_a_checkpoint_that_rotates_another_part_is_refused(trained, given, rotated):
    message = rf"which rotates {rotated[0]} pairs of a head, and rope\.fraction=\S+ rotates {rotated[1]}; search for a"
    with pytest.raises(ConfigError, match=message):
        problem(trained, **given)
