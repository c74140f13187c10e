"""A run goes on in a folder that lacks its option files: their values are in its checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest

from aptlab.config import Fallback, compose, find_missing_nodes
from aptlab.errors import ConfigError
from aptlab.restore.upgrade import fill_added
from aptlab.training.plan import flatten_config, plan_training
from tests.commands.test_plan import RUN, checkpoint, composed

RULE = """# A rule of our own.
_target_: aptlab.nn.positions.rope.YaRN
base: 500.0
factor: 2.0
original_len: ${context}
"""
RECIPE = """
# @package _global_
# An experiment of our own.
defaults:
  - override /rope: linear
  - override /schedule: wsd
context: 48
rope:
  factor: 3.0
model:
  tied: false
optim:
  lr: 0.01
"""


@pytest.fixture
def options():
    """Option files of our own, until they are taken away."""
    files = {Path("conf/rope/mine.yaml"): RULE, Path("conf/recipe/ours.yaml"): RECIPE.lstrip()}
    files[Path("conf/callbacks/calm.yaml")] = "# Fewer looks.\nguard:\n  patience: 9\n"
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    yield files
    composed.cache_clear()


def lose(files) -> None:
    for path in files:
        path.unlink()


def test_the_values_of_an_option_without_a_file_are_those_of_the_checkpoint(options):
    checkpoint("size=debug", "context=64", "rope=mine", "rope.factor=8", "callbacks=[default,calm]")
    before = plan_training(["ckpt=last"]).config.resolved()
    lose(options)
    made = plan_training(["ckpt=last"])
    assert made.resume
    assert fill_added(made.config.resolved()) == fill_added(before)
    assert made.config.choices["rope"] == "mine"
    assert made.config.overrides.count("rope=mine") == 1
    assert "  rope=mine: no such file here; its values are the checkpoint's" in made.notes
    assert before["callbacks"]["guard"]["patience"] == 9


def test_new_values_and_a_new_option_come_on_top(options):
    checkpoint("size=debug", "context=64", "rope=mine", "rope.factor=8")
    lose(options)
    made = plan_training(["ckpt=last", "rope.factor=4", "rope=mine"])
    assert (made.config.cfg.rope.base, made.config.cfg.rope.factor) == (500.0, 4)
    assert made.config.cfg.model.positions.rope.factor == 4
    other = plan_training(["ckpt=last", "rope=ntk"])
    assert other.config.cfg.rope._target_.endswith("NTK")


def test_a_recipe_without_a_file_leaves_its_whole_configuration(options):
    checkpoint("size=debug", "recipe=ours", "data.batch=2")
    before = plan_training(["ckpt=last"]).config.resolved()
    lose(options)
    made = plan_training(["ckpt=last", "trainer.max_steps=900"])
    assert made.resume
    old, new = flatten_config(before), flatten_config(made.config.resolved())
    changed = {key: new.get(key) for key in {**old, **new} if old.get(key) != new.get(key)}
    assert changed.pop("trainer.max_steps") == 900
    assert {key.rpartition(".")[2] for key in changed} == {"vocab"}  # filled in, once the tokenizer was there
    assert (made.config.cfg.context, made.config.cfg.rope.factor, made.config.cfg.model.tied) == (48, 3.0, False)


def test_an_option_that_the_run_did_not_have_is_unknown_as_ever(options):
    checkpoint("size=debug", "context=64", "rope=mine")
    lose(options)
    with pytest.raises(ConfigError, match="rope=mne: no such option"):
        plan_training(["ckpt=last", "rope=mne"])
    with pytest.raises(ConfigError, match="rope=mine: no such option"):
        compose("train", ["rope=mine"])


def test_an_option_that_lies_here_with_other_values_is_a_change(options):
    checkpoint("size=debug", "context=64", "rope=mine")
    Path("conf/rope/mine.yaml").write_text(RULE.replace("2.0", "3.0"))
    made = plan_training([f"ckpt={RUN}"])
    assert not made.resume
    assert "  rope.factor: 2.0 -> 3.0" in made.notes


def test_an_eval_of_the_run_is_found_at_its_place(options):
    Path("conf/eval").mkdir()
    path = Path("conf/eval/long.yaml")
    path.write_text("# Long.\n_target_: aptlab.evals.Sliding\ntokens: 77\n")
    chosen = ["size=debug", "+eval@evals.far=long"]
    old = compose("train", chosen)
    path.unlink()
    assert find_missing_nodes(chosen) == ["evals.far"]
    assert compose("train", chosen, Fallback(old.resolved(), old.choices, chosen)).resolved() == old.resolved()
