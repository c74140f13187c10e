"""One run over several tasks: the score matrix, replay, and a stop at any step."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import aptlab
from aptlab.continual.keys import draw_keys
from aptlab.continual.metrics import compute_scores
from aptlab.errors import CheckpointError, ConfigError, DataError, EvalError
from aptlab.runs import find_runs
from tests.continual.small import (
    SMALL,
    WORDS,
    find_run_difference,
    read_state,
    read_tasks,
    resume_copy,
    train,
    write_scenario,
)

REPLAYS = {
    "reservoir": ("replay.capacity=12",),
    "task_balanced": ("replay.capacity=9", "replay.update=task"),
    "ring": ("replay.capacity=6", "replay.schedule.every=2"),
    "herding": ("replay.capacity=6",),
}


@pytest.fixture(autouse=True)
def _scenario() -> None:
    write_scenario()


def test_a_run_fills_the_matrix_and_tells_its_numbers(capsys):
    run = train("run", "replay=reservoir", "replay.capacity=12", "evals=tasks")
    record = read_tasks(run)
    assert (record["tasks"], record["ends"], record["score"]) == (list(WORDS), [3, 6, 9], "-nats per token")
    assert np.shape(record["matrix"]) == (3, 3)
    assert [point["step"] for point in record["points"]] == [0, 3, 6, 9]
    assert record["matrix"] == [point["scores"] for point in record["points"][1:]]
    numbers = compute_scores(record["matrix"], record["baseline"]).plain()
    result = find_runs([run])[0].result
    assert result is not None
    assert {name: result.metrics[f"tasks/{name}"] for name in numbers} == numbers
    told = capsys.readouterr().out
    assert "-nats per token on each task after training on" in told
    assert f"{numbers['acc']:.4f}" in told
    assert {path.name for path in run.glob("evals/*/tasks/*")} == {"eval.json", "matrix.png", "curves.png"}


@pytest.mark.slow
def test_a_task_is_learned_while_it_is_trained():
    record = read_tasks(train("run", "optim.lr=0.02", "scenario.steps=12", "trainer.max_steps=36"))
    before = [record["baseline"], *record["matrix"]]
    for task, row in enumerate(record["matrix"]):
        assert row[task] > before[task][task] + 0.5


@pytest.mark.slow
@pytest.mark.parametrize("replay", REPLAYS)
def test_a_run_resumed_in_the_middle_ends_as_one_that_was_not_stopped(replay):
    whole = train("whole", f"replay={replay}", *REPLAYS[replay])
    # Inside a task, at its end, inside a later one; one stop is enough where only the policy differs.
    for step in (2, 3, 7) if replay == "reservoir" else (5,):
        assert find_run_difference(whole, resume_copy(whole, step, f"copy-{step}")) is None


@pytest.mark.slow
def test_replay_changes_what_is_learned():
    plain, replayed = train("plain"), train("replayed", "replay=reservoir", "replay.capacity=12")
    assert find_run_difference(plain, replayed) is not None


@pytest.mark.slow
def test_the_reservoir_holds_the_rows_with_the_smallest_keys():
    run = train("run", "replay=reservoir", "replay.capacity=7", "seed=5")
    state = read_state(run)["callbacks"]["ReplayMemory"]
    offered = state["offered"]
    kept = np.sort(np.argsort(draw_keys(5, np.arange(offered)))[:7])
    assert state["memory"]["numbers"].tolist() == kept.tolist()
    assert offered == int(np.unpackbits(state["seen"].numpy()).sum())


@pytest.mark.slow
def test_accumulated_steps_begin_tasks_at_the_same_steps():
    run = train("run", "replay=reservoir", "trainer.accumulate_grad_batches=2")
    assert [point["step"] for point in read_tasks(run)["points"]] == [0, 3, 6, 9]
    assert read_state(run)["TextTasks"]["micro_batches"] == 18
    assert find_run_difference(run, resume_copy(run, 4, "copy")) is None


def test_joint_training_measures_at_the_same_steps():
    run = train("run", "scenario.joint=true")
    assert read_tasks(run)["joint"] is True
    assert [point["step"] for point in read_tasks(run)["points"]] == [0, 3, 6, 9]


def test_a_task_without_text_is_named():
    write_scenario(empty="lower")
    with pytest.raises(DataError, match=r"scenario\.sources\.lower\.files=lower\.txt has 3 bytes of text, too few"):
        train("run")
    assert not os.path.exists("run")


def test_a_buffer_larger_than_memory_is_refused_with_numbers():
    told = r"capacity=9000000000000 takes 1,\S+ GB, \d+ bytes a sample, and 50% of this machine's memory is .*; use at "
    with pytest.raises(ConfigError, match=told + r"most capacity=\d+, or set max_bytes="):
        train("run", "replay=reservoir", "replay.capacity=9000000000000")
    assert not os.path.exists("run")
    with pytest.raises(ConfigError, match=r"and max_bytes is 100 bytes; use at most capacity=0"):
        train("run", "replay=reservoir", "replay.max_bytes=100")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["replay=class_balanced"], "by=class: rows of text have no class; use replay=task_balanced, or by=task"),
        (
            ["replay=task_balanced", "scenario.boundaries=hidden"],
            "boundaries=hidden, and this replay asks where a",
        ),
        (
            ["replay=herding", "replay.update=step"],
            "update=step: Herding chooses among all samples of a task; set",
        ),
        (
            ["scenario.steps=4"],
            r"scenario.steps=4 takes 12 steps for 3 tasks, and trainer.max_steps=9; set tr",
        ),
        (["scenario.steps=[1,2]"], r"steps=\[1, 2\] has 2 numbers for 3 tasks \(digits, lower, upper\); give one for"),
        (
            ["replay=ring", "callbacks.replay=null"],
            "samples are to be kept, and no callback does it; use call",
        ),
        (["scenario.steps=0"], "steps=0: every task takes at least 1 step"),
        (["trainer.max_steps=2"], "trainer.max_steps=2 is no step for each of 3 tasks; use more steps"),
        (["scenario=none", "data=tasks"], "data=tasks reads texts, and NoScenario has none; choose scenario=domains"),
        (
            ["scenario=none", "data=packed", "data.files=digits.txt", "replay=ring"],
            "and TextData are none; use sc",
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_there_is_a_folder(words, told):
    with pytest.raises((ConfigError, DataError), match=told):
        train("run", *words)
    assert not os.path.exists("run")


def test_a_run_without_tasks_has_no_matrix():
    words = ["scenario=none", "data=packed", "data.files=digits.txt", "evals=tasks"]
    with pytest.raises(EvalError, match=r"the run has no tasks\.json: it was trained on one task, or elsewhere"):
        train("run", *words)


@pytest.mark.slow
def test_a_longer_run_is_resumed_where_its_tasks_stay_where_they_are():
    train("run")
    with pytest.raises(CheckpointError, match=r"end at steps \[3, 6\].*at \[6, 12\]; .* scenario.steps=\[3,3,3\]"):
        aptlab.train(["ckpt=run", "trainer.max_steps=18"])
    aptlab.train(["ckpt=run", "trainer.max_steps=12", "scenario.steps=[3,3,3]", "load=resume"])
    assert [point["step"] for point in read_tasks(Path("run"))["points"]] == [0, 3, 6, 9, 12]


@pytest.mark.slow
def test_other_batches_or_another_policy_are_refused_on_resume():
    run = train("run", "replay=reservoir")
    with pytest.raises(CheckpointError, match=r"trained with global_batch=4, now 2: tasks would begin at other rows"):
        aptlab.train([f"ckpt={run}/checkpoints/step-00000004.ckpt", "data.batch=2", "load=resume"])
    with pytest.raises(CheckpointError, match="kept by Reservoir, and replay now keeps them by Ring; resume with the"):
        aptlab.train([f"ckpt={run}/checkpoints/step-00000004.ckpt", "replay=ring", "load=resume"])


@pytest.mark.slow
def test_kill_9_in_the_middle_costs_nothing():
    words = ("replay=reservoir", "replay.capacity=12")
    command = [sys.executable, "-m", "aptlab", "train", *SMALL, *words, "run_dir=killed"]
    environment = {**os.environ, "APTLAB_FAULT": "save.after_rename:5"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == -9, done.stderr
    aptlab.train(["ckpt=killed"])
    assert find_run_difference(train("whole", *words), Path("killed")) is None


@pytest.mark.slow
def test_two_ranks_hold_the_samples_of_one():
    words = ("replay=reservoir", "replay.capacity=12")
    ranks = ("device=ddp", "device.accelerator=cpu", "device.devices=2", "data.batch=2", "run_dir=ranks")
    ranks += ("data.val_batches=2",)  # as many rows as one batch of 4
    command = [
        sys.executable,
        "-m",
        "aptlab",
        "train",
        *(word for word in SMALL if word != "device=cpu"),
        *words,
        *ranks,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    one = read_state(train("one", *words))["callbacks"]["ReplayMemory"]
    two = read_state(Path("ranks"))["callbacks"]["ReplayMemory"]
    for name, values in one["memory"].items():
        assert values.tolist() == two["memory"][name].tolist(), name
    scores = [read_tasks(Path(name))["matrix"] for name in ("one", "ranks")]
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-5)
