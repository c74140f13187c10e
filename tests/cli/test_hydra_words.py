"""Flags and keys of hydra.main are answered with what to type here, and with the page that says why."""

from __future__ import annotations

from pathlib import Path

import pytest

from aptlab.cli import main
from aptlab.cli.hydra_words import FLAGS, KEYS, PAGE, WHY

DOCUMENT = (Path(__file__).parents[2] / PAGE).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("args", "answer"),
    [
        (["hydra.run.dir=x"], "hydra.run.dir: run_dir=<folder> sets the folder of a run"),
        (["+hydra.sweep.subdir=x"], "+hydra.sweep.subdir: sweep.name=<folder>"),
        (["-m", "hydra/launcher=joblib"], "hydra/launcher: launcher=process|joblib|submitit with -m"),
        (["hydra/sweeper=optuna"], "hydra/sweeper: -m key=a,b makes a grid; sweep=optuna searches"),
        (["hydra.job.env_set.A=1"], "hydra.job.env_set.A: there is no such key"),
        (["~hydra"], "~hydra: there is no such key"),
        (["-cn", "mine"], "-cn: each command has one primary config"),
        (["--config-name=mine"], "--config-name: each command has one primary config"),
        (["--config-dir", "x"], "--config-dir: put files into ./conf/<group>/<name>.yaml"),
        (["--info"], "--info: --cfg prints the configuration"),
        (["--cfg", "job"], "--cfg: it takes no word here"),
        (["--cfg", "--resolve"], "--resolve: --cfg prints the configuration with interpolations filled in"),
    ],
)
@pytest.mark.parametrize("command", ["train", "eval", "check"])
def test_a_word_of_hydra_is_answered(command, args, answer, capsys):
    assert main([command, *args]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith(answer)
    assert lines[-1] == WHY


def test_every_word_is_told_at_once(capsys):
    assert main(["train", "hydra.run.dir=x", "--info", "seed=1"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 3


def test_other_words_are_nobody_elses():
    from aptlab.cli.hydra_words import find_hydra_problem

    assert find_hydra_problem(["rope=yarn", "job=hydra", "-m", "--cfg", "hydraulic=1"]) is None


@pytest.mark.parametrize("word", [*FLAGS, *KEYS])
def test_the_page_has_a_row_for_every_word(word):
    assert f"`{word}`" in DOCUMENT


OVERRIDES = ["rope=yarn", "rope.factor=8", "evals=null", "recipe=smoke", "data.split={seed: 7}"]
OVERRIDES += ["+callbacks.timer._target_=lightning.pytorch.callbacks.Timer", "~trainer.gradient_clip_val"]


@pytest.mark.parametrize("text", OVERRIDES)
def test_an_override_of_the_page_is_right(text):
    from aptlab.config import check, compose

    assert f"`{text}`" in DOCUMENT
    check(compose("train", ["rope=yarn", text] if text == "rope.factor=8" else [text]))
