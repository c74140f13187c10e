"""A run from weights that are there: the text that it reads is named, recipes win, a size is never ignored."""

from __future__ import annotations

import re

import pytest

from aptlab.config import compose
from aptlab.errors import ConfigError
from aptlab.training.labels import format_count, label_choices, list_position_notes
from aptlab.training.plan import plan_training
from tests.commands.test_plan import BASE, checkpoint

TEXT = "  text: Python's own (source=stdlib), for none was named; data.files=… names yours, and recipe=finetune has"


def imported(*overrides: str) -> None:
    """A checkpoint as `aptlab import` writes it: no step, no run, and `size` as its command composes it."""
    checkpoint("size.dim=48", "size.depth=3", "size.hidden=64", "context=64", *overrides, step=0, run_dir="")


def named(notes: tuple[str, ...]) -> list[str]:
    return [line for line in notes if line.startswith("  text: ")]


def test_imported_weights_without_a_text_are_told_which_one_is_read():
    imported()
    (line,) = named(plan_training(["ckpt=outputs"]).notes)
    assert line == f"{TEXT} rates for trained weights (optim.lr=0.003 here)"


def test_only_the_model_of_imported_weights_can_change():
    """What else stands in their configuration is a default that nobody has trained with."""
    imported()
    made = plan_training(["ckpt=outputs", "recipe=finetune", "data.files=a.txt", "rope=yarn"])
    changes = [line.strip() for line in made.notes if "->" in line]
    assert [line.partition(":")[0] for line in changes if not line.startswith("rope.")] == []
    assert any(line.startswith("rope._target_: ") for line in changes)


@pytest.mark.parametrize("words", [["source=stdlib"], ["data.files=a.txt"], ["recipe=finetune", "data.files=a.txt"]])
def test_a_text_that_was_named_needs_no_line(words):
    imported()
    assert named(plan_training(["ckpt=outputs", *words]).notes) == []


def test_weights_that_were_trained_here_bring_their_text():
    checkpoint(*BASE)
    assert named(plan_training(["ckpt=outputs", "load=weights"]).notes) == []


def test_the_recipe_demands_a_text_and_has_small_rates():
    imported()
    with pytest.raises(ConfigError, match=r"data\.files: a value is needed"):
        plan_training(["ckpt=outputs", "recipe=finetune"])
    made = plan_training(["ckpt=outputs", "recipe=finetune", "data.files=a.txt"])
    assert not made.resume
    assert (made.config.cfg.optim.lr, made.config.cfg.schedule.warmup) == (2e-5, 0.1)
    assert (made.config.cfg.context, made.config.cfg.size.dim) == (64, 48)


def test_a_recipe_wins_over_values_of_the_checkpoint():
    checkpoint(*BASE, "optim.lr=0.5", "data.batch=7", "seed=3")
    made = plan_training(["ckpt=outputs", "load=weights", "recipe=finetune", "data.files=a.txt"])
    assert (made.config.cfg.optim.lr, made.config.cfg.data.batch, made.config.cfg.seed) == (2e-5, 2, 3)
    typed = plan_training(["ckpt=outputs", "load=weights", "recipe=finetune", "data.files=a.txt", "optim.lr=1e-4"])
    assert typed.config.cfg.optim.lr == 1e-4


@pytest.mark.parametrize("load", ["auto", "weights"])
def test_a_size_that_is_not_that_of_the_weights_is_refused(load):
    imported()
    message = "size=tiny: that is dim=128, depth=4, hidden=352, and the weights have dim=48, depth=3, hidden=64; leave"
    with pytest.raises(ConfigError, match=re.escape(message)):
        plan_training(["ckpt=outputs", f"load={load}", "size=tiny"])


def test_the_size_that_the_weights_have_may_be_typed():
    checkpoint(*BASE)
    assert plan_training(["ckpt=outputs", "size=debug"]).resume
    with pytest.raises(ConfigError, match=r"size=tiny: that is dim=128, .* and the weights have dim=32"):
        plan_training(["ckpt=outputs", "size=tiny"])


@pytest.mark.parametrize(
    ("words", "label"),
    [
        (["size=debug"], "debug"),
        (["size=debug", "size.kv_heads=2", "size.head_dim=16"], "debug"),
        (["size.dim=48"], "1.24B"),
    ],
)
def test_a_size_is_called_by_its_option_only_where_it_is_that(words, label):
    assert label_choices(compose("train", words), 1_240_000_000)["size"] == label


def test_a_number_of_parameters_has_three_digits():
    assert [format_count(count) for count in (836_864, 135_000_000, 1_240_000_000, 12)] == [
        "837k",
        "135M",
        "1.24B",
        "12",
    ]


@pytest.mark.parametrize(
    ("words", "note"),
    [
        (
            ["embed=learned", "bias=alibi"],
            "note: rope=standard rotates queries and keys beside embed=learned and bias=al",
        ),
        (["bias=t5"], "note: rope=standard rotates queries and keys beside bias=t5; rope=none leaves it out"),
        (["bias=t5", "rope=standard"], None),
        (["bias=t5", "rope=none"], None),
        (["bias=t5", "rope=yarn"], None),
        ([], None),
    ],
)
def test_a_rotation_that_nobody_asked_for_is_noted(words, note):
    found = list_position_notes(compose("train", words))
    assert len(found) == (note is not None)
    assert note is None or found[0].startswith(note)
    assert plan_training(words).notes == tuple(found)
