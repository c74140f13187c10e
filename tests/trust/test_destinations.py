"""A checkpoint does not say where things go: addresses, folders and what is started are the user's own."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from aptlab.checkpoint.manifest import Manifest
from aptlab.commands import export, generate
from aptlab.commands.eval import read_eval_request
from aptlab.commands.generate import read_generate_request
from aptlab.commands.search import read_search_request
from aptlab.config.destinations import drop_destinations, says_where
from aptlab.errors import CheckpointError, ConfigError
from aptlab.restore.data import build_data
from aptlab.training.inherited import inherit_overrides
from aptlab.training.plan import plan_training
from tests.commands.test_plan import RUN, checkpoint

BASE = ("size=debug", "context=64")
SENT = [
    "logger=wandb",
    "logger.base_url=http://127.0.0.1:9",
    "logger.project=theirs",
    "logger.entity=theirs",
    "logger.tags=[x]",
    "logger.mode=offline",
    "paths.root=/tmp/theirs",
    "run_dir=/tmp/theirs",
    "data.cache=/tmp/theirs",
    "trainer._target_=aptlab.device.Cpu",
    "device=cpu",
    "+evals.sample.include=/tmp/theirs",
    "+callbacks.x={_target_:aptlab.callbacks.stop.GracefulStop,dirpath:/tmp/theirs}",
]
KEPT = ["logger=wandb", "logger.mode=offline", "device=cpu"]


def send(overrides: list[str]) -> None:
    """A checkpoint in outputs/ whose stored overrides are these, beside its own."""
    checkpoint(*BASE)
    path = next(RUN.glob("checkpoints/*.json"))
    manifest = Manifest.parse(path.read_text())
    path.write_text(dataclasses.replace(manifest, overrides=[*BASE, *overrides]).text())


@pytest.mark.parametrize("load", ["resume", "weights"])
def test_a_run_that_goes_on_from_a_checkpoint_has_its_own_destinations(load):
    send(SENT)
    made = plan_training(["ckpt=last", f"load={load}"])
    cfg = made.config.cfg
    assert (cfg.logger.base_url, cfg.logger.project, cfg.logger.entity, list(cfg.logger.tags)) == (None, None, None, [])
    assert (cfg.logger.mode, cfg.paths.root, cfg.data.cache, cfg.trainer._target_) == (
        "offline",
        "outputs",
        None,
        "lightning.Trainer",
    )
    assert cfg.run_dir is None if load == "weights" else Path(cfg.run_dir).samefile(RUN)
    assert "theirs" not in str(made.config.overrides) + str(made.config.resolved())
    assert [arg for arg in made.config.overrides if arg in SENT] == KEPT
    line = next(note for note in made.notes if "left out" in note)
    assert line.startswith("  left out, for a checkpoint does not say where things go: logger.base_url, logger.project")
    for key in ("paths.root", "data.cache", "trainer._target_", "evals.sample.include", "callbacks.x"):
        assert f" {key}" in line
    assert ("run_dir" in line) is (load == "weights")


def test_what_the_user_gives_again_is_his_and_is_not_spoken_of():
    send(["logger=wandb", "logger.project=theirs"])
    made = plan_training(["ckpt=last", "logger.project=mine"])
    assert made.config.cfg.logger.project == "mine"
    assert not [note for note in made.notes if "left out" in note]


def test_a_run_without_destinations_is_told_nothing():
    checkpoint(*BASE, "logger=csv", "device=cpu", "trainer.max_steps=9")
    made = plan_training(["ckpt=last"])
    assert (made.resume, made.config.cfg.logger.mode) == (True, "none")
    assert not [note for note in made.notes if "left out" in note]


@pytest.mark.parametrize("group", ["logger", "device", "trainer", "paths"])
def test_an_option_of_the_machine_whose_file_is_gone_leaves_no_values(group):
    folder = Path("conf") / group
    folder.mkdir(parents=True)
    file = folder / "theirs.yaml"
    values = {
        "logger": "_target_: aptlab.loggers.Tracking\nmode: none\nproject: theirs",
        "device": "_target_: aptlab.device.Cpu",
        "trainer": "_target_: lightning.Trainer\n_partial_: true\nmax_steps: 3\nlog_every_n_steps: 1",
        "paths": "root: theirs",
    }
    file.write_text(f"# Theirs.\n{values[group]}\n")
    checkpoint(*BASE, f"{group}=theirs")
    file.unlink()
    made = plan_training(["ckpt=last", "load=resume"])
    assert (made.config.choices[group] == "theirs") is (group == "trainer")  # of plain values alone
    assert "theirs" not in str(made.config.resolved())
    left_out = any(f"where things go: {group}; give it again" in note for note in made.notes)
    assert left_out is (group != "trainer")
    assert made.config.cfg.trainer.max_steps == (3 if group == "trainer" else 400)


def test_a_recipe_whose_file_is_gone_leaves_no_destinations():
    Path("conf/recipe").mkdir(parents=True)
    file = Path("conf/recipe/theirs.yaml")
    file.write_text(
        "# @package _global_\n# Theirs.\ndefaults:\n  - override /logger: csv\nlogger:\n  project: theirs\n"
        "paths:\n  root: theirs\ndata:\n  cache: theirs\n  batch: 2\ntrainer:\n  max_steps: 7\n"
    )
    checkpoint("size=debug", "recipe=theirs")
    file.unlink()
    cfg = plan_training(["ckpt=last"]).config.cfg
    assert (cfg.data.batch, cfg.trainer.max_steps, cfg.logger.mode) == (2, 7, "none")
    assert (cfg.data.get("cache"), cfg.paths.root, cfg.logger.get("project")) == (None, "outputs", None)


@pytest.mark.parametrize(
    ("key", "where"),
    [
        ("logger.base_url", True),
        ("logger.anything", True),
        ("logger.mode", False),
        ("device.address", True),
        ("device.devices", False),
        ("paths.cache", True),
        ("callbacks.x.dirpath", True),
        ("callbacks.checkpoints.every", False),
        ("evals.harness.include", True),
        ("data.cache", True),
        ("data.root", False),
        ("data.upload_url", True),
        ("data.source.path", False),
        ("source.path", False),
        ("tokenizer.path", False),
        ("trainer.default_root_dir", True),
        ("trainer.max_steps", False),
        ("rope.base", False),
        ("run_dir", True),
        ("job", False),
    ],
)
def test_keys_that_say_where_something_goes_are_known(key, where):
    assert says_where(key) is where


def test_an_override_that_cannot_be_read_is_left_for_the_message_of_the_check():
    assert inherit_overrides(["=x"], [], {}).kept == ["=x"]


def test_data_of_a_checkpoint_write_no_cache_where_it_says(caplog, tmp_path):
    split = {"_target_": "aptlab.data.store.split.Split"}
    node = {"_target_": "aptlab.data.module.TextData", "context": 8, "batch": 1, "split": split, "cache": str(tmp_path)}
    source = {"_target_": "aptlab.data.sources.Stdlib"}
    from aptlab.data.tokenizers import ByteTokenizer

    made = build_data({"data": {**node, "source": source}}, tokenizer=ByteTokenizer())
    assert made.cache is None
    assert "data.cache is left out, for a checkpoint does not say where things go" in caplog.text
    assert drop_destinations({"source": {"path": "x"}, "cache": None}, "data") == ({"source": {"path": "x"}}, [])


STORED_DATA = {"_target_": "aptlab.data.module.TextData", "batch": 4, "cache": "/tmp/theirs"}


@pytest.mark.parametrize("command", ["eval", "search"])
def test_where_a_checkpoints_data_go_is_said_without_an_option(command, monkeypatch):
    monkeypatch.setenv("MINE", "my ${x}")
    read = {"eval": read_eval_request, "search": read_search_request}[command]
    more = ["target=64", "rope=longrope2"] if command == "search" else []
    request = read([*more, "data.cache=${oc.env:MINE}"])
    stored = {"data": STORED_DATA, "context": 32, "rope": None}
    assert request.filled(stored)["data"] == {**STORED_DATA, "cache": "my \\${x}"}
    assert request.config.overrides[-1] == "data.cache=${oc.env:MINE}"
    assert "theirs" not in str(request.filled(stored))


def test_a_command_that_reads_no_data_says_that_it_needs_no_place_for_them(capsys):
    with pytest.raises(CheckpointError, match="ckpt=last finds no run"):
        generate.run(["ckpt=last", "data.cache=mine", "prompt=x"])
    assert capsys.readouterr().err == "data.cache=mine: not used, for generate reads no data\n"
    with pytest.raises(CheckpointError, match="ckpt=last finds no run"):
        export.run(["ckpt=last", "data.cache=mine"])
    assert capsys.readouterr().err == "data.cache=mine: not used, for export reads no data\n"
    with pytest.raises(ConfigError, match=r"^data: unknown"):
        read_generate_request(["data.batch=4"])
