"""Trainer keys that a run sets itself are refused, all at once, and what really ran is recorded."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import yaml

from aptlab.cli import main
from aptlab.config import compose
from aptlab.errors import ConfigError
from aptlab.training.plan import check_training
from aptlab.training.trainer_keys import OWNED, find_trainer_problems, resolve_trainer_lengths
from tests.commands.small_run import train, words

WAYS = [
    ("accelerator", "gpu", "use device=cuda"),
    ("accelerator", "cpu", "use device=cpu"),
    ("devices", 4, "use device=ddp device.devices=4"),
    ("num_nodes", 2, "use device=ddp device.nodes=2"),
    ("strategy", "ddp", "use device=ddp"),
    ("precision", "bf16-true", "use precision=bf16-true"),
    ("precision", 16, "use precision=bf16-mixed"),
    ("logger", False, "use logger=csv"),
    ("callbacks", ["x"], "use callbacks=[default,x], once x.yaml is in ./conf/callbacks"),
    ("callbacks", [], "use callbacks=null for none"),
    ("plugins", ["x"], "use precision= and device="),
    ("default_root_dir", "here", "use run_dir=<folder>"),
    ("enable_progress_bar", False, "use callbacks.progress=null"),
    ("enable_model_summary", True, "use no key at all: every run begins with a summary"),
    ("enable_checkpointing", False, "use callbacks.checkpoints=null"),
    ("check_val_every_n_epoch", 1, "use validate.every=<optimizer steps>"),
    ("use_distributed_sampler", True, "use no key at all: the loaders share out the rows"),
    ("barebones", True, "use callbacks=[…]"),
    ("fast_dev_run", True, "use trainer=debug"),
]


def test_every_owned_key_is_tried_here():
    assert {key for key, _, _ in WAYS} == set(OWNED)


@pytest.mark.parametrize(("key", "value", "way"), WAYS)
def test_a_key_that_a_run_sets_itself_is_refused_with_the_way_out(key, value, way):
    (problem,) = find_trainer_problems({"trainer": {key: value}})
    assert problem.startswith(f"trainer.{key}: a run sets this itself, so {value!r} would mean nothing; {way}")


@pytest.mark.parametrize("command", ["check", "train"])
def test_all_of_them_are_told_at_once_with_exit_code_2(command, capsys):
    asked = ["trainer.devices=4", "trainer.precision=bf16-true", "trainer.logger=false", "trainer.max_step=3"]
    assert main([command, *words(*asked)]) == 2
    told = capsys.readouterr().err
    for part in ("device=ddp device.devices=4", "precision=bf16-true", "use logger=csv", "did you mean max_steps?"):
        assert part in told
    assert not Path("outputs").exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["trainer.val_check_interval=4"], r"trainer.val_check_interval: 4 and validate.every=100 are both given"),
        (
            ["trainer.val_check_interval=0.25"],
            r"0.25 of an epoch, but training data has no end; set trainer.max_epochs",
        ),
        (
            ["trainer.val_check_interval=1.5", "trainer.max_epochs=1"],
            r"1.5 is no share of an epoch, which is in \(0, 1",
        ),
        (["trainer.val_check_interval=0"], r"trainer.val_check_interval: 0 batches; use 1 or more"),
        (["trainer.val_check_interval='00:00:01:00'"], r"'00:00:01:00' is a time, which no resumed run can repeat"),
        (
            ["trainer.val_check_interval=5", "trainer.accumulate_grad_batches=2"],
            r"5 batches end inside an optimizer step of trainer.accumulate_grad_batches=2; use 4 or 6, or validate",
        ),
        (
            ["trainer.max_steps=0"],
            r"trainer.max_steps=0: the schedule needs an end; use 1 or more, or set trainer",
        ),
        (
            ["trainer.max_epochs=0"],
            r"trainer.max_epochs=0 is no pass over the text; use 1 or more, or trainer.max_steps=<steps> alone",
        ),
        (["validate.every=0"], r"validate.every: must be a finite number >= 1, got 0"),
        (["validate.every=0.25"], r"validate.every: expects int or null, got 0.25"),
    ],
)
def test_an_interval_that_cannot_work_is_refused_by_the_check(overrides, message):
    none = ["validate.every=null"] if "both" not in message and "validate.every=" not in " ".join(overrides) else []
    with pytest.raises(ConfigError, match=message):
        check_training(compose("train", [*none, *overrides]))


@pytest.mark.parametrize(
    ("trainer", "every", "interval", "steps"),
    [
        ({"max_steps": 40}, 10, 10, 40),
        ({"max_steps": 40, "accumulate_grad_batches": 3}, 10, 30, 40),
        ({"max_steps": 4}, 10, 4, 4),
        ({"max_steps": 40}, None, 40, 40),
        ({"max_steps": 40, "val_check_interval": 6, "accumulate_grad_batches": 2}, None, 6, 40),
        ({"max_steps": -1, "max_epochs": 2, "val_check_interval": 0.25}, None, 5, 40),
        ({"max_epochs": 2, "val_check_interval": 0.25, "accumulate_grad_batches": 2}, None, 4, 20),
        ({"max_epochs": 2, "val_check_interval": 1.0}, None, 20, 40),
        ({"max_epochs": 2, "max_steps": 30, "val_check_interval": 1.0}, None, 20, 30),
    ],
)
def test_lengths_in_batches_and_steps(trainer, every, interval, steps):
    found = resolve_trainer_lengths({"trainer": trainer, "validate": {"every": every}}, batches_per_epoch=20)
    assert found == {"max_epochs": -1, "max_steps": steps, "val_check_interval": interval}


@pytest.mark.parametrize(
    ("asked", "steps"),
    [
        (["validate.every=2"], ["2", "4"]),
        (["validate.every=null"], ["4"]),
        (["validate.every=null", "trainer.val_check_interval=3"], ["3", "4"]),
        (["validate=null"], ["4"]),
    ],
)
def test_validations_come_when_they_were_asked_for(asked, steps):
    made = train("trainer.max_steps=4", "evals=none", *asked)
    rows = csv.DictReader((made.path / "metrics.csv").open())
    assert [row["step"] for row in rows if row["val/loss"]] == steps


def test_what_really_ran_is_in_the_result_and_the_configuration():
    made = train("precision=bf16-mixed", "evals=none", "validate.every=1")
    ran = json.loads((made.path / "result.json").read_text())["ran"]
    assert ran == {
        "device": "cpu", "devices": 1, "nodes": 1, "ranks": 1, "strategy": "SingleDeviceStrategy",
        "precision": "bf16-mixed", "max_steps": 2, "validate_every": 1,
    }  # fmt: skip
    assert yaml.safe_load((made.path / "config.yaml").read_text())["ran"] == ran
