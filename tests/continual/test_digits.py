"""Digits, two after two: classification with every objective that remembers, stopped and gone on."""

from __future__ import annotations

from pathlib import Path

import pytest

import aptlab
from aptlab.errors import ConfigError
from tests.continual.small import find_run_difference, read_state, read_tasks, resume_copy

STEPS = 10
WORDS = (
    "scenario=split_digits",
    "size=debug",
    "trainer=debug",
    "logger=csv",
    "device=cpu",
    "context=16",
    "data.batch=8",
)
WORDS += ("data.val_batches=2", "evals=null", "validate.every=null", "callbacks.checkpoints.every=1")
WORDS += ("callbacks.checkpoints.keep=99",)
LOSS = "objective.loss._target_=aptlab.objectives.CrossEntropy"
METHODS = {
    "er": ("replay=reservoir", "replay.capacity=20"),
    "der_pp": ("replay=reservoir", "replay.capacity=20", "objective=der_pp"),
    "herding": ("replay=herding", "replay.capacity=20", "replay.policy.by=class"),
    "lwf": ("objective=lwf",),
    "elastic": ("ffn=matformer", "objective=elastic", LOSS, "replay=reservoir", "replay.capacity=20"),
    "ewc": ("objective=ewc", "objective.samples=3", "replay=class_balanced", "replay.capacity=15"),
}


def train(folder: str, *words: str, steps: int = STEPS) -> Path:
    aptlab.train([*WORDS, f"trainer.max_steps={steps}", *words, f"run_dir={folder}"])
    return Path(folder)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["herding", "lwf", "ewc", "elastic"])  # er is in test_runs, der_pp below
def test_a_method_resumed_in_a_later_task_ends_as_one_that_was_not_stopped(method):
    whole = train("whole", *METHODS[method])
    assert len(read_tasks(whole)["matrix"]) == 5
    assert find_run_difference(whole, resume_copy(whole, 5, "copy"), STEPS) is None


@pytest.mark.slow
def test_logits_too_large_for_memory_are_kept_in_a_file(monkeypatch):
    plain = train("plain", *METHODS["der_pp"])
    monkeypatch.setattr("aptlab.callbacks.replay.LARGE", 100)
    mapped = train("mapped", *METHODS["der_pp"])
    assert find_run_difference(plain, mapped, STEPS) is None
    assert find_run_difference(plain, resume_copy(mapped, 5, "copy"), STEPS) is None
    assert not list(Path().glob("*/replay-*.bin"))


@pytest.mark.slow
def test_methods_train_other_weights():
    runs = [train(name, *METHODS[name]) for name in ("er", "der_pp", "lwf")]
    heads = [read_state(run, STEPS)["state_dict"]["net.head.weight"] for run in runs]
    assert all((one != other).any() for i, one in enumerate(heads) for other in heads[:i])


def test_class_balanced_memory_holds_as_many_of_each_class():
    run = train("run", "replay=class_balanced", "replay.capacity=16", "trainer.accumulate_grad_batches=3")
    groups = read_state(run, STEPS)["callbacks"]["ReplayMemory"]["memory"]["groups"]
    assert groups.bincount(minlength=10).tolist() == [2] * 6 + [1] * 4


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["task.net.classes=8"], "net.classes=8, and the data have 10; set task.net.classes=10"),
        (["objective=der_pp", "replay=herding"], "update=task: DarkExperience keeps the logits of the step at which a"),
        (
            ["objective=elastic", "ffn=matformer"],
            "NextToken is the loss of tokens, and here each row has one class; use",
        ),
        (
            ["objective=lwf", "objective.base._target_=aptlab.objectives.NextToken"],
            "NextToken is the loss of tokens, an",
        ),
        (["objective=elastic", LOSS], "Elastic trains several widths of one network, and this network has one; choose"),
        (["objective=lwf", "scenario.boundaries=hidden"], "LearningWithoutForgetting asks where a task ends; use sc"),
    ],
)
def test_what_does_not_fit_is_refused_before_there_is_a_folder(words, told):
    with pytest.raises(ConfigError, match=told):
        train("run", *words)
    assert not Path("run").exists()


@pytest.mark.slow
def test_replay_forgets_less_than_fine_tuning():
    """Split digits: fine-tuning knows the last two digits alone, with a memory of 200 half of all ten are known."""
    long = (
        "optim.lr=0.003",
        "schedule=wsd",
        "data.batch=16",
        "data.val_batches=null",
        "callbacks.checkpoints.every=1000",
    )
    scores = {}
    for name, words in {"plain": (), "er": ("replay=reservoir", "replay.capacity=200")}.items():
        record = read_tasks(train(name, *long, *words, steps=500))
        scores[name] = sum(record["matrix"][-1]) / 5
    assert scores["plain"] < 0.3
    assert scores["er"] > scores["plain"] + 0.3
