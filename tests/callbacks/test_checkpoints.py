"""When checkpoints are written and which are kept."""

from __future__ import annotations

import errno
import logging
import os
import shutil

import pytest
import torch
from lightning.pytorch import Callback
from tests.helpers import FewRows, Rows, task, trainer

from aptlab.callbacks import RunContext
from aptlab.callbacks.checkpoints import Checkpoints
from aptlab.checkpoint import AtomicIO, find_checkpoint, load_checkpoint, read_manifest
from aptlab.checkpoint.find import list_checkpoints
from aptlab.checkpoint.finite import has_finite_weights
from aptlab.checkpoint.stream import HashingFile
from aptlab.errors import CheckpointError, ConfigError, TrainingError, UnsavedError


class Metric(Callback):
    """Give validation the losses of a list, in turn."""

    def __init__(self, values):
        self.values = list(values)

    def on_validation_epoch_end(self, trainer, pl_module):
        pl_module.log("score", torch.tensor(self.values.pop(0)))


def fit(folder, *, ckpt=None, scores=(), extra=(), settings=None, **options):
    saver = Checkpoints(**options)
    saver.attach(RunContext(folder=folder, describe=lambda: {"overrides": ["a=1"]}))
    callbacks = [saver, *([Metric(scores)] if scores else []), *extra]
    defaults = {"enable_checkpointing": True, "plugins": [AtomicIO()], "default_root_dir": folder}
    run = trainer(**(defaults | {"callbacks": callbacks} | (settings or {})))
    run.fit(task(), Rows(), FewRows(), ckpt_path=ckpt)
    return saver, run


def steps(folder):
    return [read_manifest(path).step for path in list_checkpoints(folder / "checkpoints")]


class Writes(Callback):
    """Steps at which files were written."""

    def __init__(self, monkeypatch):
        self.seen = []
        save = AtomicIO.save_checkpoint

        def count(io, checkpoint, path, storage_options=None):
            self.seen.append(checkpoint["aptlab"]["step"])
            save(io, checkpoint, path, storage_options)

        monkeypatch.setattr(AtomicIO, "save_checkpoint", count)


def test_each_interval_and_the_end_are_saved_once(tmp_path, monkeypatch):
    writes = Writes(monkeypatch)
    fit(tmp_path, every=2, keep=9, keep_best=0, settings={"max_steps": 7, "val_check_interval": 2})
    assert writes.seen == [2, 4, 6, 7]
    assert steps(tmp_path) == [2, 4, 6, 7]


def test_lightning_adds_no_checkpoint_callback_of_its_own(tmp_path):
    saver, run = fit(tmp_path, every=100)
    assert run.checkpoint_callbacks == [saver]
    assert sorted(os.listdir(tmp_path)) == ["checkpoints"]


def test_a_step_is_saved_after_its_validation_with_the_metric(tmp_path):
    fit(tmp_path, every=3, scores=[2.5, 1.5], monitor="score")
    assert [read_manifest(path).metric for path in list_checkpoints(tmp_path / "checkpoints")] == [2.5, 1.5]
    entry = load_checkpoint(find_checkpoint(tmp_path))["aptlab"]
    assert (entry["version"], entry["step"], entry["overrides"], entry["metric"]) == (1, 6, ["a=1"], 1.5)


@pytest.mark.parametrize(("mode", "kept"), [("min", [4, 9, 10]), ("max", [2, 9, 10])])
def test_the_newest_and_the_best_are_kept(tmp_path, mode, kept):
    scores = [3.0, 1.0, 2.0, 2.0, 2.0]
    settings = {"max_steps": 10, "val_check_interval": 2}
    fit(tmp_path, every=3, keep=2, scores=scores, monitor="score", mode=mode, settings=settings)
    assert steps(tmp_path) == kept
    assert read_manifest(find_checkpoint(tmp_path, which="best")).step == kept[0]


@pytest.mark.parametrize("bad", [float("nan"), float("-inf")])
def test_a_metric_that_is_no_number_is_never_best(tmp_path, bad):
    settings = {"max_steps": 6, "val_check_interval": 2}
    fit(tmp_path, every=2, keep=1, scores=[2.0, bad, 3.0], monitor="score", settings=settings)
    assert steps(tmp_path) == [2, 6]
    assert read_manifest(find_checkpoint(tmp_path, which="best")).metric == 2.0


class Ruin(Callback):
    """NaN in one weight from step 4 on, while the metric looks good."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step >= 4:
            next(pl_module.parameters()).data[0] = float("nan")


def test_weights_that_are_not_finite_are_never_best(tmp_path, caplog):
    settings = {"max_steps": 6, "val_check_interval": 2}
    with (
        caplog.at_level(logging.WARNING, "aptlab"),
        pytest.raises(TrainingError, match="step 4: numbers that are not finite are in net"),
    ):
        fit(tmp_path, every=2, scores=[2.0, 1.0, 0.5], monitor="score", extra=[Ruin()], settings=settings)
    assert "step 4: the weights hold a number that is not finite; it is not the best" in caplog.text
    assert read_manifest(find_checkpoint(tmp_path, which="best")).step == 2


def test_the_best_is_remembered_over_a_resume(tmp_path):
    fit(tmp_path, every=3, keep=1, scores=[1.0, 2.0], monitor="score")
    fit(
        tmp_path,
        every=3,
        keep=1,
        scores=[1.5],
        monitor="score",
        ckpt=str(find_checkpoint(tmp_path)),
        settings={"max_steps": 9},
    )
    assert steps(tmp_path) == [3, 9]


def test_going_on_from_an_earlier_step_drops_the_later_ones_once_something_new_is_there(tmp_path, caplog):
    fit(tmp_path, every=2, keep=9, settings={"max_steps": 8})
    first = list_checkpoints(tmp_path / "checkpoints")[0]
    with caplog.at_level(logging.INFO, "aptlab"):
        fit(tmp_path, every=3, keep=9, ckpt=str(first), settings={"max_steps": 5})
    assert steps(tmp_path) == [2, 3, 5]
    assert "removed checkpoints of an earlier way of this run: step-00000004.ckpt, step-00000006.ckpt" in caplog.text


def test_a_fresh_start_in_an_old_folder_replaces_its_checkpoints(tmp_path):
    fit(tmp_path, every=2, keep=9, settings={"max_steps": 8})
    fit(tmp_path, every=3, keep=9, settings={"max_steps": 5})
    assert steps(tmp_path) == [3, 5]


def test_remains_of_an_interrupted_save_are_removed_at_the_start(tmp_path, caplog):
    (tmp_path / "checkpoints").mkdir()
    for name in ("step-00000099.ckpt", ".step-00000099.ckpt.01234567.tmp"):
        (tmp_path / "checkpoints" / name).write_bytes(b"half")
    with caplog.at_level(logging.INFO, "aptlab"):
        fit(tmp_path, every=6)
    assert steps(tmp_path) == [3, 6]
    assert (
        "removed the remains of an interrupted save: .step-00000099.ckpt.01234567.tmp, step-00000099.ckpt"
        in caplog.text
    )


# A full disk


class Disk(Callback):
    """Writing fails while `full` says so."""

    def __init__(self, monkeypatch, full):
        self.full, put = full, HashingFile._put

        def write(file, piece):
            if self.full(self.step):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            put(file, piece)

        monkeypatch.setattr(HashingFile, "_put", write)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.step = trainer.global_step


def test_a_full_disk_is_a_warning_and_training_goes_on(tmp_path, monkeypatch, caplog):
    disk = Disk(monkeypatch, lambda step: 3 <= step <= 5)
    with caplog.at_level(logging.WARNING, "aptlab"):
        _, run = fit(tmp_path, every=2, keep=9, on_error="continue", extra=[disk], settings={"max_steps": 7})
    assert run.global_step == 7
    assert steps(tmp_path) == [2, 6, 7]
    assert "step 4 was not saved: cannot write" in caplog.text
    assert "No space left on device" in caplog.text


def test_a_run_that_could_save_nothing_is_an_error(tmp_path, monkeypatch):
    with pytest.raises(UnsavedError, match=r"training ended, but no checkpoint could be written to .*checkpoints") as e:
        fit(tmp_path, every=2, on_error="continue", extra=[Disk(monkeypatch, lambda step: True)])
    assert e.value.exit_code == 1


def test_on_error_stop_ends_the_run_at_once_and_keeps_what_is_there(tmp_path, monkeypatch):
    disk = Disk(monkeypatch, lambda step: step > 2)
    with pytest.raises(UnsavedError, match=r"stopped at step 4, .*cannot write .*step-00000004.ckpt: No space left"):
        fit(tmp_path, every=2, on_error="stop", extra=[disk], settings={"val_check_interval": 100})
    assert steps(tmp_path) == [2]


def test_low_space_is_seen_before_writing(tmp_path, monkeypatch, caplog):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(CheckpointError, match="no checkpoint could be written"):
        fit(tmp_path, every=2, on_error="continue")
    assert "not enough space for" in caplog.text
    assert os.listdir(tmp_path / "checkpoints") == []


# Wrong use


@pytest.mark.parametrize(("name", "value"), [("every", 0), ("keep", 0), ("keep_best", -1)])
def test_limits(name, value):
    with pytest.raises(ConfigError, match=rf"^{name} must be a finite number >= .*, got {value}"):
        Checkpoints(**{name: value})


def test_without_a_folder_it_says_what_is_missing(tmp_path):
    with pytest.raises(CheckpointError, match=r"no folder; call attach\(RunContext\(folder=…\)\) before Trainer.fit"):
        trainer(callbacks=[Checkpoints()], enable_checkpointing=True).fit(task(), Rows(), FewRows())


def test_a_description_that_is_not_plain_is_named(tmp_path):
    saver = Checkpoints(every=1, on_error="continue")
    saver.attach(RunContext(folder=tmp_path, describe=lambda: {"config": {"path": tmp_path}}))
    run = trainer(callbacks=[saver], enable_checkpointing=True, plugins=[AtomicIO()])
    with pytest.raises(CheckpointError, match="training ended, but no checkpoint"):
        run.fit(task(), Rows(), FewRows())


def test_finite():
    module = torch.nn.Linear(2, 2)
    assert has_finite_weights(module)
    module.weight.data[0, 0] = 3e38
    assert has_finite_weights(module)
    module.bias.data[1] = float("inf")
    assert not has_finite_weights(module)
