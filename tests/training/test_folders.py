"""What is in a run folder already stays: another run is refused there, going back puts aside what it replaces."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest

from aptlab.commands.train import run
from aptlab.errors import ConfigError
from tests.commands.small_run import newest, texts, words

STEPS = ["trainer.max_steps=4", "callbacks.checkpoints.every=2", "callbacks.checkpoints.keep=9", "validate.every=2"]


def read_steps(path: Path) -> list[str]:
    return [row["step"] for row in csv.DictReader(path.open())]


def content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "log.txt"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A finished run of four steps, saved at two and four."""
    place, monkeypatch = tmp_path_factory.mktemp("trained"), pytest.MonkeyPatch()
    monkeypatch.chdir(place)
    assert run([*words(*STEPS), "run_dir=run"]) == 0
    monkeypatch.undo()
    return place


@pytest.fixture
def folder(trained, monkeypatch, tmp_path) -> Path:
    shutil.copytree(trained, tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    return Path("run")


def test_a_new_run_is_refused_where_another_is(folder):
    before = content(folder)
    with pytest.raises(
        ConfigError, match=r"^run_dir=run holds a run, saved at step 4; give another folder, .*aptlab train ckpt=run$"
    ):
        run([*words(*STEPS, "optim.lr=0.01"), "run_dir=run"])
    with pytest.raises(ConfigError, match=r"^run_dir=run holds a run, saved at step 4"):
        run(["ckpt=run", "load=weights", "run_dir=run"])
    assert content(folder) == before


def test_an_older_checkpoint_with_nothing_to_train_changes_nothing(folder, capsys):
    assert run(["ckpt=run", "trainer.max_steps=6"]) == 0
    before = content(folder)
    capsys.readouterr()
    assert run([f"ckpt={folder}/checkpoints/step-00000004.ckpt", "trainer.max_steps=4"]) == 0
    assert (
        "the checkpoint is of step 4 and trainer.max_steps=4 asks for no more; the run run is finished at step 6"
        in (capsys.readouterr().out)
    )
    assert content(folder) == before


def test_going_back_is_told_and_keeps_the_metrics_that_it_cuts(folder, caplog):
    assert read_steps(folder / "metrics.csv") == ["1", "2", "3", "4"]
    assert run([f"ckpt={folder}/checkpoints/step-00000002.ckpt"]) == 0
    assert "going back from step 4 to 2: what comes replaces the later checkpoints" in caplog.text
    assert read_steps(folder / "results" / "metrics-to-step-00000004.csv") == ["1", "2", "3", "4"]
    assert newest(str(folder.parent)).result.steps == 4


def test_going_on_from_the_newest_is_not_told(folder, caplog):
    assert run(["ckpt=run", "trainer.max_steps=6", f"data.files={texts()}"]) == 0
    assert "going back" not in caplog.text
    assert not list(folder.glob("results/metrics*"))
