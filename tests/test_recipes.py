"""A recipe begins with its claim, composes, checks, and trains two steps at debug size."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

import aptlab
from aptlab.config import check, compose
from aptlab.errors import ConfigError
from tests.commands.small_run import texts

ROOT = Path(__file__).parents[1]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
CLAIM = ("Command:", "Time:", "Expected:", "Source:")
OWN_TEXTS = {"curriculum": 2, "continual": 3, "reverse": 2}  # recipes about certain texts, and the fewest steps of each
NEEDS = {"finetune": ["data.files=some.txt"]}  # what a recipe demands of its user
names = pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)


def test_the_group_is_a_relative_link():
    assert (ROOT / "conf" / "recipe").is_symlink()
    assert os.readlink(ROOT / "conf" / "recipe") == "../recipes"
    assert RECIPES


@names
def test_it_begins_with_its_claim(path):
    first, *lines = path.read_text().splitlines()
    assert first == "# @package _global_"
    claim = [line[2:] for line in lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))]]
    found = {line.partition(" ")[0]: line for line in claim}
    assert [word for word in found if word in CLAIM] == list(CLAIM)
    assert f"aptlab train recipe={path.stem}" in found["Command:"]
    assert re.search(r"\d+ (s|minutes)\b.* on ", found["Time:"])
    assert re.search(r"\d\.\d+ (bits per byte|token accuracy)", found["Expected:"])
    assert 10 <= len(lines) + 1 <= 30


@names
def test_it_composes_and_checks(path):
    config = compose("train", [f"recipe={path.stem}", *NEEDS.get(path.stem, [])])
    check(config)
    assert config.choices["recipe"] == path.stem


@pytest.mark.parametrize("name", NEEDS)
def test_one_that_demands_a_text_is_refused_without_it(name):
    with pytest.raises(ConfigError, match=r"data\.files: a value is needed; set data\.files=<value>"):
        check(compose("train", [f"recipe={name}"]))


@names
def test_it_trains_two_steps(path):
    steps = OWN_TEXTS.get(path.stem, 2)
    small = ["size=debug", "context=32", f"trainer.max_steps={steps}", "device=cpu", "logger=csv", "data.batch=4"]
    small += ["data.split.val_fraction=0.3", "data.val_batches=1", "validate=end"]
    small += [] if path.stem in OWN_TEXTS else [f"data.files={texts()}"]
    small += ["rope.original_len=16"] if compose("train", [f"recipe={path.stem}"]).choices["data"] == "mixed" else []
    small += ["tokenizer.vocab=300"] if "bpe" in path.stem else []
    made = aptlab.train(f"recipe={path.stem}", small)
    assert made.result.steps == steps
    assert (made.choices["recipe"], made.choices["size"]) == (path.stem, "debug")
