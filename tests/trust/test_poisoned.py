"""Weights that are not finite never count as a checkpoint, and every advice leads to the last good one."""

from __future__ import annotations

import logging
import math

import pytest
import torch
from lightning.pytorch import Callback

from aptlab.checkpoint import find_checkpoint, is_valid, read_manifest
from aptlab.checkpoint.find import list_checkpoints, remove_partial_saves
from aptlab.checkpoint.finite import find_poison
from aptlab.config import build, compose
from aptlab.config.search_path import read_option_index
from aptlab.errors import CheckpointError, TrainingError
from tests.faults.parts import Run

NAN, INF = math.nan, math.inf


class Ruin(Callback):
    """Put NaN into one weight after a step, as a bad kernel or a bad bit of memory would."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == self.step:
            next(pl_module.parameters()).data.view(-1)[0] = NAN


class Average(Callback):
    """An average of the weights beside them, as an EMA keeps one; ruined after a step while the weights are fine."""

    def __init__(self) -> None:
        self.mean = torch.zeros(3)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == 4:
            self.mean[1] = NAN

    def state_dict(self):
        return {"mean": self.mean}


def names(run: Run) -> list[str]:
    return sorted(path.name for path in (run.folder / "checkpoints").glob("*.ckpt"))


def test_they_are_kept_aside_the_run_ends_with_1_and_the_good_ones_stay(tmp_path):
    run = Run(tmp_path / "run", callbacks=[Ruin(4)], val=100, checkpoints={"keep": 1})
    with pytest.raises(TrainingError, match=r"^step 6: numbers that are not finite are in net\.\S+ and 1 more, which "
                       r"training cannot mend; the state is kept aside as poisoned-step-00000006.ckpt; continue from "
                       r"the last good checkpoint with a lower optim.lr or trainer.gradient_clip_val: aptlab train "
                       r"ckpt=\S+/step-00000003.ckpt load=resume optim.lr=…$") as caught:  # fmt: skip
        run.train()
    assert caught.value.exit_code == 1
    assert names(run) == ["poisoned-step-00000006.ckpt", "step-00000003.ckpt"]
    aside = run.folder / "checkpoints" / "poisoned-step-00000006.ckpt"
    assert is_valid(aside), "whole, for a look at it"
    assert read_manifest(find_checkpoint(run.folder)).step == 3
    assert read_manifest(find_checkpoint(run.folder.parent)).step == 3
    with pytest.raises(CheckpointError, match="no valid checkpoint"):
        find_checkpoint(run.folder, which="best")
    run.callbacks = [Ruin(7)]
    with pytest.raises(TrainingError, match=r"kept aside as poisoned-step-00000009.ckpt"):
        run.train(run.last())
    assert names(run) == ["poisoned-step-00000009.ckpt", "step-00000006.ckpt"], "one of them, and the newest good one"


def test_the_guard_leads_to_the_last_good_one_too(tmp_path):
    run = Run(tmp_path / "run", callbacks=[Ruin(4)], val=100, guard={"patience": 2}, checkpoints={"every": 3})
    with pytest.raises(TrainingError, match=r"2 steps in a row .*; the weights themselves are not finite \(net\.\S+ "
                       r"and 0 more\), so they are not saved; continue from the last good checkpoint .*ckpt=\S+"
                       r"step-00000003.ckpt load=resume optim.lr=…, or look at these samples$"):  # fmt: skip
        run.train()
    assert names(run) == ["step-00000003.ckpt"]


def test_without_a_good_one_the_way_is_from_the_start(tmp_path):
    run = Run(tmp_path / "run", callbacks=[Ruin(1)], val=100, checkpoints={"every": 2})
    with pytest.raises(TrainingError, match=r"no checkpoint was saved before; start again with a lower optim.lr"):
        run.train()


def test_an_average_of_the_weights_counts_as_they_do(tmp_path):
    run = Run(tmp_path / "run", callbacks=[Average()], val=100)
    with pytest.raises(
        TrainingError, match=r"step 6: numbers that are not finite are in callbacks.Average.mean, which"
    ):
        run.train()
    assert names(run) == ["poisoned-step-00000006.ckpt", "step-00000003.ckpt"]


def state(**changed):
    plain = {
        "state_dict": {"net.w": torch.ones(2, 2), "net.mask": torch.zeros(3), "net.count": torch.tensor(3)},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(2, 2), "step": torch.tensor(4.0)}}}],
        "callbacks": {"Stop": {"best": torch.tensor(INF)}, "Ema": {"mean": [torch.ones(2)]}},
    }
    for path, value in changed.items():
        *parents, last = path.split("/")
        node = plain
        for parent in parents:
            node = node[int(parent) if parent.isdigit() else parent]
        node[int(last) if last.isdigit() else last] = torch.as_tensor(value)
    return plain


@pytest.mark.parametrize(
    ("path", "value", "found"),
    [
        ("state_dict/net.w", [1.0, NAN], "net.w"),
        ("state_dict/net.w", [1.0, -INF], "net.w"),
        ("state_dict/net.w", torch.tensor([1.0, INF], dtype=torch.bfloat16), "net.w"),
        ("state_dict/net.w", [3e38, -3e38], None),
        ("state_dict/net.w", torch.ones(0), None),
        ("state_dict/net.mask", [0.0, -INF], None),  # as a mask has it from the first step on
        ("state_dict/net.mask", [0.0, NAN], "net.mask"),
        ("optimizer_states/0/state/0/exp_avg", [INF, 0.0], "optimizer_states.0.state.0.exp_avg"),
        ("callbacks/Ema/mean/0", [NAN, 1.0], "callbacks.Ema.mean.0"),
        ("callbacks/Stop/best", NAN, None),  # a single number is not a weight
    ],
)
def test_what_is_poison(path, value, found):
    assert find_poison(state(**{path: value}), {"net.w"}) == found


def test_several_are_counted():
    bad = state(
        **{"state_dict/net.w": [NAN], "optimizer_states/0/state/0/exp_avg": [NAN], "state_dict/net.mask": [NAN]}
    )
    assert find_poison(bad, {"net.w"}) == "net.w and 2 more"


def test_remains_of_one_that_was_not_written_to_its_end_are_removed(tmp_path):
    remains = tmp_path / ".poisoned-step-00000006.ckpt.01234567.tmp"
    remains.write_bytes(b"half")
    assert remove_partial_saves(tmp_path) == [remains.name]
    assert list_checkpoints(tmp_path) == []


@pytest.mark.slow
def test_no_option_begins_with_what_counts_as_poison():
    index = read_option_index().groups
    for group in ("rope", "bias", "embed", "smooth", "attention", "ffn", "norm", "block"):
        for option in index[group]:
            net = build({**compose("train", ["size=debug", f"{group}={option}"]).resolved()["model"], "vocab": 61})
            trained = {name for name, weight in net.named_parameters() if weight.requires_grad}
            assert find_poison({"state_dict": net.state_dict()}, trained) is None, f"{group}={option}"


def test_a_good_run_says_nothing_of_it(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "aptlab"):
        Run(tmp_path / "run", val=100).train()
    assert caplog.text == ""
