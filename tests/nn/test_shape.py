"""Sizes: what is filled in, and what is refused."""

import dataclasses

import pytest

from aptlab.errors import ConfigError
from aptlab.nn.shape import Shape

GOOD = {"dim": 64, "depth": 2, "heads": 4, "hidden": 128}


def test_kv_heads_and_head_dim_follow_from_the_others():
    shape = Shape(**GOOD)
    assert (shape.kv_heads, shape.head_dim) == (4, 16)


def test_given_kv_heads_and_head_dim_stay():
    shape = Shape(**GOOD, kv_heads=2, head_dim=32)
    assert (shape.kv_heads, shape.head_dim) == (2, 32)


def test_head_dim_frees_dim_from_heads():
    assert Shape(dim=100, depth=1, heads=3, hidden=8, head_dim=16).head_dim == 16


def test_a_shape_is_frozen_and_hashable():
    shape = Shape(**GOOD)
    assert hash(shape) == hash(Shape(**GOOD))
    with pytest.raises(dataclasses.FrozenInstanceError):
        shape.dim = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dim": 66}, r"^dim=66 is not divisible by heads=4; nearest dims: 64, 68"),
        ({"dim": 3}, r"^dim=3 is not divisible by heads=4; nearest dims: 4, or set head_dim"),
        ({"kv_heads": 3}, r"^kv_heads=3 does not divide heads=4; allowed: \[1, 2, 4\]"),
        ({"dim": 60}, r"^head_dim=15 is odd.*use dim=64"),
        ({"depth": 0}, r"^depth must be a finite number >= 1, got 0"),
        ({"hidden": -1}, r"^hidden must be"),
        ({"head_dim": 0}, r"^head_dim must be"),
    ],
)
def test_sizes_that_do_not_fit_name_the_way_out(change, message):
    with pytest.raises(ConfigError, match=message):
        Shape(**(GOOD | change))
