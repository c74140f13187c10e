"""What a rule on old weights takes from the one that they were trained with."""

import sys

import pytest

from aptlab.restore.rope import fill_inherited_values, find_inherited_values

PARTIAL = {"_target_": "aptlab.nn.positions.rope.Partial", "base": 5.0, "fraction": 0.5, "layout": "interleaved"}
YARN = {
    "_target_": "aptlab.nn.positions.rope.YaRN",
    "base": 10_000.0,
}  # as in conf/rope: layout is the default of the class
IROPE = {
    "_target_": "aptlab.nn.positions.rope.IRope",
    "inner": {"_target_": "aptlab.nn.positions.rope.Standard", "base": 7.0},
}


@pytest.mark.parametrize(
    ("rule", "trained", "taken"),
    [
        (YARN, PARTIAL, {"rope.base": 5.0, "rope.layout": "interleaved", "rope.fraction": 0.5}),
        (PARTIAL, YARN, {"rope.base": 10_000.0, "rope.layout": "half", "rope.fraction": 1.0}),
        (YARN, IROPE, {"rope.base": 7.0}),
        (IROPE, PARTIAL, {"rope.inner.base": 5.0, "rope.inner.layout": "interleaved"}),
        (YARN, {"_target_": "aptlab.nn.positions.rope.NoRope"}, {}),
        (YARN, {"_target_": "aptlab.nn.positions.rope.Gone", "base": 3.0}, {}),
        (YARN, None, {}),
        (None, YARN, {}),
    ],
)
def test_base_and_layout_are_those_of_the_rotating_layers(rule, trained, taken):
    assert find_inherited_values(rule, trained, ()) == taken


def test_the_part_of_a_head_is_taken_where_the_word_means_the_same():
    searched = {"_target_": "aptlab.nn.positions.rope.LongRoPE", "base": 5.0, "layout": "interleaved"}
    assert find_inherited_values(searched, PARTIAL, ()) == {"rope.fraction": 0.5}
    assert find_inherited_values(PARTIAL, searched, ()) == {"rope.fraction": 1.0}
    assert find_inherited_values({**searched, "_target_": "aptlab.nn.positions.rope.Proportional"}, PARTIAL, ()) == {}


def test_what_is_given_stays():
    assert find_inherited_values(YARN, PARTIAL, {"rope.base", "rope.fraction"}) == {"rope.layout": "interleaved"}
    assert find_inherited_values(IROPE, PARTIAL, {"rope.inner.layout"}) == {"rope.inner.base": 5.0}


def test_values_are_put_where_the_rotating_rule_stands():
    values = {"rope": {**IROPE, "inner": dict(IROPE["inner"])}, "context": 8}
    inner = {**IROPE["inner"], "base": 5.0, "layout": "interleaved"}
    assert fill_inherited_values(values, PARTIAL, ()) == {"rope": {**IROPE, "inner": inner}, "context": 8}
    assert fill_inherited_values({"rope": None}, PARTIAL, ()) == {"rope": None}


def test_a_default_that_is_computed_is_left_alone(tmp_path, monkeypatch):
    (tmp_path / "home_made.py").write_text(
        "from dataclasses import dataclass\n\nBASE = 9.0\n\n@dataclass(frozen=True)\nclass Rule:\n"
        "    base: float = BASE\n    layout: str = 'half'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert find_inherited_values({"_target_": "home_made.Rule"}, PARTIAL, ()) == {"rope.layout": "interleaved"}


def test_no_class_is_imported_to_be_asked():
    """Old checkpoints name classes too, and theirs may be anyone's."""
    assert find_inherited_values(YARN, {"_target_": "antigravity.Rule", "base": 3.0}, ()) == {}
    assert "antigravity" not in sys.modules
