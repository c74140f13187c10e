"""A run that was killed or stopped, and went on, ends equal to the bit with one that was not."""

from __future__ import annotations

import functools
import random
import time
from functools import partial

import pytest
import torch
from lightning.pytorch import Callback

from aptlab.callbacks.progress import find_monitor
from aptlab.checkpoint import read_manifest
from aptlab.nn.smooth import MemorySmooth, Strength
from tests.faults.parts import Run, assert_same, differences, file_state

pytestmark = pytest.mark.filterwarnings("ignore")

KINDS = {
    "plain": {},
    "accumulate-3": {"accumulate": 3, "steps": 8},
    "bf16-memory-val-at-data-epoch-end": {"precision": "bf16-mixed", "smooth": MemorySmooth, "val": 6, "every": 6},
}
MORE = {
    "accumulate-4": {"accumulate": 4, "steps": 8},
    "bf16": {"precision": "bf16-mixed"},
    "memory": {"smooth": MemorySmooth},
    "memory-with-history-by-step": {"smooth": partial(MemorySmooth, strength=Strength(history="step")), "every": 2},
    "val-at-data-epoch-end": {"val": 6, "every": 6},
    "save-and-val-each-step": {"val": 1, "every": 1, "steps": 9},
}
NAMES = [*KINDS, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE)]


@pytest.fixture(scope="module")
def find_whole(tmp_path_factory):
    """Name of a kind -> the outcome of its undisturbed run, which is trained once and read by many tests."""
    return functools.cache(lambda name: Run(tmp_path_factory.mktemp("whole") / "run", **(KINDS | MORE)[name]).train())


@pytest.fixture(params=NAMES)
def pair(request, tmp_path, find_whole):
    """The outcome of an undisturbed run, and a run of the same kind still to come."""
    return find_whole(request.param), Run(tmp_path / "broken", **(KINDS | MORE)[request.param])


def test_a_data_epoch_is_six_batches_so_these_runs_cross_its_end(tmp_path):
    assert Run(tmp_path / "run", steps=1).train().data.train_dataloader().rows.batches_per_epoch == 6


def test_kill_9_at_random_batches(pair):
    whole, run = pair
    batches = run.steps * run.accumulate
    for seed in range(3):
        run.folder = run.folder.with_name(f"broken-{seed}")
        at = random.Random(seed).randint(run.every * run.accumulate + 2, batches)
        assert run.in_child(f"train.batch:{at}") == 137
        done = (at - 1) // run.accumulate
        found = read_manifest(run.last()).step
        assert done - run.every <= found <= done, "more work was lost than one interval"
        assert_same(run.resume(), whole)


@pytest.mark.parametrize("where", ["train.batch:1", "train.batch:2", "train.batch:8", "val.batch:1", "val.batch:2"])
def test_sigterm_saves_the_exact_step_and_the_rest_is_the_same(pair, where):
    whole, run = pair
    assert run.in_child(f"{where}:TERM") == 143
    step = read_manifest(run.last()).step
    place, count = where.split(":")
    expected = run.val if place == "val.batch" else -(-(int(count) - 1) // run.accumulate)
    assert step == expected
    resumed = run.resume()
    assert_same(resumed, whole)
    if place == "val.batch":
        assert step in resumed.seen.val, "the validation that was given up was not repeated"
    assert resumed.seen.val == {at: loss for at, loss in whole.seen.val.items() if at in resumed.seen.val}


def test_stops_again_and_again(pair):
    """Every second batch and every validation is interrupted: two preemptions in one data epoch and many more."""
    whole, run = pair
    ckpt, stops = None, 0
    for number in range(60):
        where = "val.batch:1:TERM" if number % 3 == 0 else f"train.batch:{run.accumulate + 1}:TERM"
        code = run.in_child(where, ckpt)
        ckpt = run.last()
        if code == 0:
            break
        assert code == 143
        stops += 1
    assert stops >= 4
    assert differences(file_state(ckpt), whole.state()) == []


@pytest.mark.parametrize("batch", [1, 2])
def test_stop_in_the_very_last_validation(tmp_path, batch, find_whole):
    whole, run = find_whole("plain"), Run(tmp_path / "run")
    assert run.in_child(f"val.batch:{4 + batch}:TERM") == 143
    assert read_manifest(run.last()).step == 12
    assert read_manifest(run.last()).metric is None
    resumed = run.resume()
    assert resumed.seen.val == {12: whole.seen.val[12]}
    assert resumed.seen.losses == {}
    assert resumed.trainer.max_steps == 12
    assert differences(resumed.state(), whole.state()) == []
    assert read_manifest(run.last()).metric == whole.seen.val[12]


def test_a_finished_run_that_is_resumed_changes_nothing(tmp_path):
    run = Run(tmp_path / "run")
    whole = run.train()
    files = sorted(path.name for path in whole.saver.directory.iterdir())
    again = run.resume()
    assert again.seen.losses == {}
    assert differences(again.state(), whole.state()) == []
    assert sorted(path.name for path in whole.saver.directory.iterdir()) == files


def test_more_steps_go_on_where_the_run_ended(tmp_path):
    run = Run(tmp_path / "run", steps=7, val=3)
    run.train()
    run.steps = 9
    longer = run.resume()
    assert sorted(longer.seen.losses) == [(7, 0), (8, 0)]
    assert sorted(longer.seen.val) == [9]


def test_other_accumulation_keeps_steps_validations_and_data_in_order(tmp_path):
    run = Run(tmp_path / "run", steps=4, accumulate=3, val=2)
    before = run.train()
    run.steps, run.accumulate = 8, 2
    after = run.resume()
    assert sorted(after.seen.losses) == [(step, micro) for step in range(4, 8) for micro in range(2)]
    assert sorted(after.seen.val) == [6, 8]
    rows = before.data.train_dataloader()
    assert list(after.seen.ids.values()) == [rows.batch_at(number)["ids"].tolist() for number in range(12, 20)]


@pytest.mark.parametrize(("accumulate", "batch"), [(2, 4), (1, 4), (3, 2), (1, 8)])
def test_the_epoch_counts_rows_whatever_was_accumulated_and_however_large_a_batch_was(tmp_path, accumulate, batch):
    """Twelve batches of 4 rows were read when another run goes on."""
    run = Run(tmp_path / "run", steps=4, accumulate=3, val=100)
    before = run.train()
    passes = 12 / before.data.train_dataloader().rows.batches_per_epoch
    assert find_monitor(before.trainer).latest["epoch"] == passes
    run.steps, run.accumulate, run.batch = 5, accumulate, batch
    after = run.resume()
    per_epoch = after.data.train_dataloader().rows.batches_per_epoch
    assert find_monitor(after.trainer).latest["epoch"] == pytest.approx(passes + accumulate / per_epoch, abs=0.05)


def test_a_stop_between_micro_batches_waits_for_the_step(tmp_path):
    whole, run = Run(tmp_path / "whole", accumulate=4, steps=5).train(), Run(tmp_path / "run", accumulate=4, steps=5)
    assert run.in_child("train.batch:6:TERM") == 143
    assert read_manifest(run.last()).step == 2
    assert_same(run.resume(), whole)


def test_time_limit_between_micro_batches_loses_only_the_unfinished_step(tmp_path):
    """Lightning's own Timer ends a fit anywhere; what is saved is the last whole step."""

    class EndAfter(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            trainer.should_stop = batch_idx == 6

    run = Run(tmp_path / "run", accumulate=3, steps=5, callbacks=[EndAfter()], val=100)
    run.train()
    assert read_manifest(run.last()).step == 2
    run.callbacks = []
    assert_same(run.resume(), Run(tmp_path / "whole", accumulate=3, steps=5, val=100).train())


@pytest.mark.parametrize(("name", "code"), [("TERM", 143), ("INT", 130), ("USR1", 143)])
def test_exit_codes(tmp_path, name, code):
    run = Run(tmp_path / "run")
    begun = time.monotonic()
    assert run.in_child(f"train.batch:6:{name}") == code
    assert time.monotonic() - begun < 30
    message = (tmp_path / "error.txt").read_text()
    assert message == f"Stopped: stopped by SIG{name} at step 5; continue with: aptlab train ckpt={tmp_path / 'run'}"


@pytest.mark.slow
def test_thread_count_does_not_change_the_bits(tmp_path, find_whole):
    whole = find_whole("plain")
    torch.set_num_threads(2)
    try:
        assert differences(Run(tmp_path / "two").train().state(), whole.state()) == []
    finally:
        torch.set_num_threads(1)
