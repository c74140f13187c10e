"""Curricula over several tasks: each orders the rows of the task that is trained on, and replay keeps those rows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import aptlab
from aptlab.errors import ConfigError, DataError
from aptlab.testing.callbacks import find_difference
from tests.commands.forked import run_forked
from tests.continual import test_digits as digits
from tests.continual.small import (
    SMALL,
    STEPS,
    find_run_difference,
    read_state,
    read_tasks,
    resume_copy,
    train,
    write_scenario,
)

CAMPUS = ("curriculum=campus", "curriculum.probe_share=null", "curriculum.probe=2", "curriculum.slices=2")
STAGES = ("curriculum=stages", "curriculum.probe_share=null", "curriculum.probe=2", "curriculum.every=1")
STAGES += ("curriculum.gate.max_steps=1", "curriculum.levels=2")
LOSS = ("curriculum=sorted", "curriculum.metric._target_=aptlab.curriculum.ModelLoss")
REPLAY = ("replay=reservoir", "replay.capacity=12")
BOTH: dict[str, tuple[str, ...]] = {"stages": STAGES, "anti": ("curriculum=anti",), "sorted": LOSS}
TEXT: dict[str, tuple[str, ...]] = {"campus": CAMPUS, **BOTH, "length": ("curriculum=length",)}
WITHOUT_WORDS = ("curriculum.metrics.n_tokens=null", "curriculum.metrics.mtld=null")
IMAGES: dict[str, tuple[str, ...]] = {"campus": (*CAMPUS, *WITHOUT_WORDS), **BOTH}
RANKS = ("device=ddp", "device.accelerator=cpu", "device.devices=2", "data.batch=2", "run_dir=ranks")


@pytest.fixture(autouse=True)
def _scenario() -> None:
    write_scenario()


def read_rows(folder: Path, step: int = STEPS) -> list[int]:
    """The rows of the memory in the order in which they were offered."""
    memory = read_state(folder, step)["callbacks"]["ReplayMemory"]["memory"]
    return memory["rows"][memory["numbers"].argsort()].tolist()


def test_all_three_end_with_a_matrix_and_figures(capsys):
    run = train("run", *CAMPUS, *REPLAY, "evals=tasks")
    assert np.shape(read_tasks(run)["matrix"]) == (3, 3)
    assert {"figure.png", "curriculum.png", "matrix.png", "curves.png"} <= {path.name for path in run.rglob("*.png")}
    assert {0, 3, 6} <= {entry["step"] for entry in read_state(run)["callbacks"]["CurriculumOrder"]["timeline"]}
    assert "-nats per token on each task after training on" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("name", TEXT)
def test_a_run_on_texts_resumed_anywhere_ends_as_one_that_was_not_stopped(name):
    whole = train("whole", *TEXT[name], *REPLAY)
    for step in (2, 3, 7) if name == "campus" else (4,):  # inside a task, at its end, inside a later one
        assert find_run_difference(whole, resume_copy(whole, step, f"copy-{step}")) is None


@pytest.mark.slow
@pytest.mark.parametrize("name", IMAGES)
def test_a_run_on_images_resumed_anywhere_ends_as_one_that_was_not_stopped(name):
    whole = digits.train("whole", *IMAGES[name], *digits.METHODS["er"])
    assert find_run_difference(whole, resume_copy(whole, 5, "copy"), digits.STEPS) is None


def test_the_memory_is_offered_the_rows_that_were_trained_on():
    run = train("run", "curriculum=sorted", "replay=reservoir", "replay.capacity=1000", "trainer.max_steps=6")
    last = read_state(run, 6)["callbacks"]["CurriculumOrder"]["schedule"]["schedules"][2]
    own = last["tape"]["pieces"][0][:8].tolist()
    offsets = {row - number for row, number in zip(read_rows(run, 6)[-8:], own, strict=True)}
    assert len(offsets) == 1, "the last eight rows are those of the task's tape, by the numbers of all tasks"


@pytest.mark.slow
def test_joint_training_has_one_order_over_all_tasks():
    run = train("run", "curriculum=sorted", "scenario.joint=true", "scenario.boundaries=hidden", *REPLAY)
    assert "tape" in read_state(run)["callbacks"]["CurriculumOrder"]["schedule"]
    assert find_run_difference(run, resume_copy(run, 4, "copy")) is None


@pytest.mark.slow
def test_another_order_is_told_of_on_resume():
    run = train("run", "curriculum=sorted", "trainer.max_steps=6")
    aptlab.train([f"ckpt={run}/checkpoints/step-00000004.ckpt", "curriculum=none", "load=resume"])
    assert "resuming with rows in the order none in place of sections: rows may repeat" in (run / "log.txt").read_text()


BAD: dict[str, tuple[list[str], str]] = {
    "hidden": (
        ["scenario=small", "curriculum=campus", "scenario.boundaries=hidden"],
        r"^curriculum: scenario.boundaries=hidden, and a curriculum asks where a task ends, for it orders .*; use scen",
    ),
    "length of images": (
        ["scenario=split_digits", "curriculum=length"],
        r"^curriculum: TokenCount counts tokens, and these rows have none; take CompressionRatio, Unigram",
    ),
    "words of images": (
        ["scenario=split_digits", "curriculum=campus", "curriculum.metrics.n_tokens=null"],
        r"^curriculum: MTLD counts words, and these rows are no text; .* metrics.<its name>=null",
    ),
    "levels": (
        ["scenario=small", *STAGES, "curriculum.levels=40"],
        r"^curriculum: digits: levels=40 of \d+ validation rows: there are fewer rows; use fewer levels",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_is_told_before_there_is_a_folder(name):
    words, told = BAD[name]
    images = [word for word in SMALL if not word.startswith(("scenario=", "data.split"))]
    with pytest.raises((ConfigError, DataError), match=told):
        aptlab.train([*(images if "scenario=split_digits" in words else SMALL), *words, "run_dir=run"])
    assert not Path("run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["campus", "stages"])
def test_kill_9_anywhere_costs_nothing(name):
    words = (*TEXT[name], *REPLAY)
    whole = train("whole", *words)
    for number, fault in enumerate(("train.batch:2", "train.batch:4", "save.after_rename:3", "train.batch:8")):
        killed = f"killed-{number}"
        assert run_forked("train", *SMALL, *words, f"run_dir={killed}", fault=fault).returncode == -9
        aptlab.train([f"ckpt={killed}"])
        assert find_run_difference(whole, Path(killed)) is None, fault


@pytest.mark.slow
@pytest.mark.parametrize("name", ["campus", "stages"])
def test_two_ranks_hold_the_rows_of_one_in_its_order(name):
    words = [*(word for word in SMALL if word != "device=cpu"), *TEXT[name], *REPLAY, *RANKS]
    command = [sys.executable, "-m", "aptlab", "train", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    one, two = (read_state(folder)["callbacks"] for folder in (train("one", *TEXT[name], *REPLAY), Path("ranks")))
    for part, values in one["ReplayMemory"]["memory"].items():
        assert values.tolist() == two["ReplayMemory"]["memory"][part].tolist(), part
    schedules = [state["CurriculumOrder"]["schedule"]["schedules"] for state in (one, two)]
    assert find_difference([own["tape"] for own in schedules[0]], [own["tape"] for own in schedules[1]]) is None
