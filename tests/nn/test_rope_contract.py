"""A rule that breaks the contract is caught, with a message that says what is wrong."""

from dataclasses import dataclass
from typing import ClassVar

import pytest

from aptlab.nn.positions.rope import Rope, Standard
from aptlab.testing import RopeContract


@dataclass(frozen=True)
class Broken(Rope):
    relative: ClassVar[bool] = False
    base: float = 10_000.0
    factor: float = 2.0

    def inv_freq(self, head_dim):
        return tuple(sorted(f / (1 + self.factor) for f in Standard().inv_freq(head_dim)))


@dataclass
class Thawed(Rope):
    calls: int = 0

    def inv_freq(self, head_dim):
        self.calls += 1
        return (1.0 / self.calls,) * (head_dim // 2 + 1)


def contract_of(rule):
    contract = RopeContract()
    contract.rule = rule
    return contract


def test_broken_rules_are_caught():
    broken, thawed = contract_of(Broken()), contract_of(Thawed())
    for law, message in (
        (broken.test_frequencies_are_finite_positive_and_fastest_first, "must not increase"),
        (broken.test_relative_flag_is_what_is_measured, "relative=False, and no joint shift changes attention"),
        (broken.test_factor_one_is_the_standard_rule, "factor=1: pair 0"),
        (thawed.test_frequencies_are_finite_positive_and_fastest_first, "has 3 values, 2 pairs need one each at most"),
        (thawed.test_frequencies_depend_on_the_head_dim_alone, "a rule has no state"),
    ):
        with pytest.raises(AssertionError, match=message):
            law()
    with pytest.raises((AssertionError, TypeError), match="hash"):
        thawed.test_it_is_a_frozen_hashable_value()


def test_a_config_that_builds_another_rule_is_caught():
    contract = contract_of(Standard(base=500.0))
    contract.config = {"_target_": "aptlab.nn.positions.rope.Standard", "base": 400.0}
    with pytest.raises(AssertionError, match=r"the config builds Standard\(base=400\.0.*, not Standard\(base=500\.0"):
        contract.test_config_builds_an_equal_rule()
