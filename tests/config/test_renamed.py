"""Old words are answered by the new ones, as long as they mean nothing themselves."""

from __future__ import annotations

import re

import pytest

from aptlab.config import build, check, compose, read_signature
from aptlab.config.renamed import MODULES, TARGETS, find_new_parameter, find_new_target
from aptlab.errors import ConfigError


@pytest.mark.parametrize(
    ("key", "new"),
    [
        ("rope.law", "rope.temperature_law"),
        ("rope.rules.1.law", "rope.rules.1.temperature_law"),
        ("attention.reach.window", "attention.window.window"),
        ("model.beside.bias", "model.positions.bias"),
        ("rope.factor", None),
        ("law", None),
        ("data.law", None),
    ],
)
def test_an_old_parameter_is_found_at_any_depth_below_its_group(key, new):
    assert find_new_parameter(key) == new


@pytest.mark.parametrize("target", [*TARGETS, *(f"{module}.Anything" for module in MODULES)])
def test_an_old_class_is_another_one_today(target):
    new = find_new_target(target)
    assert new is not None
    assert find_new_target(new) is None


@pytest.mark.parametrize("new", sorted(set(TARGETS.values())))
def test_a_class_of_today_is_there(new):
    assert read_signature(new) is not None


def test_a_word_that_still_means_something_is_taken():
    config = compose("train", ["rope=dynamic", "rope.law=paper"])
    check(config)
    assert config.cfg.rope.law == "paper"


def test_a_node_that_is_built_tells_its_new_name():
    message = "node: aptlab.nn.rope.YaRN is aptlab.nn.positions.rope.YaRN now"
    with pytest.raises(ConfigError, match=re.escape(message)):
        build({"_target_": "aptlab.nn.rope.YaRN"})
