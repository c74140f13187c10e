"""DyTox on digits, two after two: stopped and gone on, what is frozen stays, and what does not fit is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from aptlab.errors import ConfigError
from aptlab.testing.callbacks import find_difference
from tests.continual.small import find_run_difference, read_state, read_tasks, resume_copy
from tests.continual.test_digits import STEPS, train

WORDS = ("task=dytox", "replay=herding", "replay.capacity=20", "replay.policy.by=class")


def read_weights(run: Path, step: int) -> dict[str, torch.Tensor]:
    return read_state(run, step)["state_dict"]


@pytest.mark.slow
def test_a_run_resumed_in_a_later_task_ends_as_one_that_was_not_stopped_and_old_parts_do_not_move():
    whole = train("whole", *WORDS)
    assert len(read_tasks(whole)["matrix"]) == 5
    for step in (5, 6):  # inside a task, and where one has just ended
        assert find_run_difference(whole, resume_copy(whole, step, f"copy{step}"), STEPS) is None
    ends = [read_weights(whole, step) for step in (2, 4, STEPS)]
    # A checkpoint is written where the next step begins, when the next task is known already.
    assert [end["net.known_tasks"].tolist() for end in ends] == [[2, 1], [3, 2], [5, 4]]
    first, second = ("net.tokens.0", "net.heads.0.matrix.weight"), ("net.tokens.1", "net.heads.1.matrix.weight")
    assert all(torch.equal(ends[0][name], ends[2][name]) for name in first)
    assert all(torch.equal(ends[1][name], ends[2][name]) for name in second)
    assert all((ends[0][name] != ends[1][name]).any() for name in second)  # it was learned in between
    assert (ends[0]["net.tab.q.weight"] != ends[2]["net.tab.q.weight"]).any()


@pytest.mark.slow
def test_the_variant_of_the_seeds_resumes_and_freezes_as_well():
    words = ("task=dytox_seed", "replay=reservoir", "replay.capacity=20")
    whole = train("whole", *words)
    assert find_run_difference(whole, resume_copy(whole, 5, "copy"), STEPS) is None
    second, last = read_weights(whole, 4), read_weights(whole, STEPS)
    parts = [name for name in last if name.startswith(("net.tokens.1", "net.attentions.1", "net.heads.1"))]
    assert len(parts) == 8
    assert all(torch.equal(second[name], last[name]) for name in parts)
    assert all((second[f"net.tokens.{task}"] != last[f"net.tokens.{task}"]).any() for task in (2, 3, 4))


@pytest.mark.slow
def test_joint_training_knows_all_tasks_from_the_start():
    run = train("joint", "task=dytox", "scenario.joint=true", steps=5)
    first, last = read_weights(run, 1), read_weights(run, 5)
    assert first["net.known_tasks"].tolist() == [5, 0]
    assert all((first[f"net.tokens.{task}"] != last[f"net.tokens.{task}"]).any() for task in range(5))


@pytest.mark.slow
def test_balanced_fine_tuning_moves_what_reads_the_encoder_and_nothing_else():
    tuned = train("tuned", *WORDS, "callbacks.balanced_tuning.epochs=1")
    plain = train("plain", *WORDS)
    one, other = read_weights(tuned, 4), read_weights(plain, 4)  # the second task has just ended
    moved = {name.split(".")[1] for name, weight in one.items() if (weight != other[name]).any()}
    assert moved == {"norm", "tab", "tokens", "heads"}
    assert all(torch.equal(one[f"net.tokens.{task}"], other[f"net.tokens.{task}"]) for task in (2, 3, 4))
    states = [read_state(run, 4)["optimizer_states"] for run in (tuned, plain)]
    assert find_difference(states[0], states[1], ()) is None
    assert find_run_difference(tuned, resume_copy(tuned, 3, "copy"), STEPS) is None


def test_balanced_fine_tuning_without_a_memory_is_refused():
    with pytest.raises(ConfigError, match=r"balanced_tuning.epochs=2 trains on what is remembered, and nothing is"):
        train("run", "task=dytox", "callbacks.balanced_tuning.epochs=2")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["task=dytox", "model.tasks=2"],
            r"DyTox has \[5, 5\] classes in its tasks, and the data have \[2, 2",
        ),
        (
            ["task=dytox", "scenario.boundaries=hidden", "objective=cross_entropy"],
            r"DyTox asks where a task begins",
        ),
        (["task=dytox", "callbacks.growth=null"], r"the network grows with its tasks, and no callback does it; use"),
        (
            ["objective=dytox"],
            r"DyToxLoss reads which classes are known, and Classifier does not say it; use task",
        ),
        (
            ["task=dytox", "model=dytox_seed"],
            r"objective.divergence=0.1 weighs a divergence head, and DyToxSeed has none; set objective.divergence=0",
        ),
        (["model=dytox"], r"model=dytox is chosen, and the task trains Classifier; add task=dytox, which trains what"),
    ],
)
def test_what_does_not_fit_is_refused_before_there_is_a_folder(words, told):
    with pytest.raises(ConfigError, match=told):
        train("run", *words)
    assert not Path("run").exists()
