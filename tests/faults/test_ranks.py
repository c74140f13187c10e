"""Two ranks: a signal to one stops both, a bad gradient on one skips on both, and nobody waits for ever."""

from __future__ import annotations

import json
import time

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.trainer.connectors.logger_connector.result import warning_cache

from aptlab.callbacks.progress import find_monitor
from aptlab.callbacks.ranks import SameConfig
from aptlab.checkpoint import load_checkpoint, read_manifest
from aptlab.objectives import IGNORE
from tests.faults.parts import Run, differences, file_state

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    run = Run(tmp_path_factory.mktemp("whole") / "run", steps=8)
    assert run.in_ranks({}) == [0, 0]
    return file_state(run.last())


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("where", [pytest.param("train.batch:6:TERM", marks=pytest.mark.slow), "val.batch:1:TERM"])
def test_a_signal_to_any_rank_stops_all_and_the_rest_is_the_same(tmp_path, whole, rank, where):
    run = Run(tmp_path / "run", steps=8)
    assert run.in_ranks({rank: where}) == [143, 0]
    assert read_manifest(run.last()).step == (5 if "train" in where else 4)
    assert "stopped by SIGTERM at step" in (tmp_path / "error-0.txt").read_text()
    assert (tmp_path / "error-1.txt").read_text() == "Stopped: "
    assert run.in_ranks({}, run.last()) == [0, 0]
    assert differences(file_state(run.last()), whole) == []


@pytest.mark.slow
def test_accumulation_on_two_ranks_resumes_to_the_bit(tmp_path):
    whole, run = Run(tmp_path / "whole", steps=6, accumulate=3), Run(tmp_path / "run", steps=6, accumulate=3)
    assert whole.in_ranks({}) == [0, 0]
    assert run.in_ranks({1: "train.batch:11:TERM"}) == [143, 0]
    assert read_manifest(run.last()).step == 4
    assert run.in_ranks({}, run.last()) == [0, 0]
    assert differences(file_state(run.last()), file_state(whole.last())) == []


@pytest.mark.parametrize("rank", [0, 1])
def test_kill_9_of_a_rank_ends_the_other_and_the_rest_is_the_same(tmp_path, whole, rank):
    run, begun = Run(tmp_path / "run", steps=8), time.monotonic()
    codes = run.in_ranks({rank: "train.batch:6"})
    assert time.monotonic() - begun < 60
    assert codes[rank] == 137
    assert codes[1 - rank] not in (0, 143)
    assert run.in_ranks({}, run.last()) == [0, 0]
    assert differences(file_state(run.last()), whole) == []


class PoisonRank(Callback):
    """A loss that is NaN on one rank only."""

    def __init__(self, rank):
        self.rank = rank

    def on_before_backward(self, trainer, pl_module, loss):
        if trainer.global_rank == self.rank and trainer.global_step == 2:
            loss.data.fill_(float("nan"))


def test_a_bad_loss_on_one_rank_skips_the_step_on_both(tmp_path):
    run = Run(tmp_path / "run", steps=5, every=1, callbacks=[PoisonRank(1)], checkpoints={"keep": 9})
    assert run.in_ranks({}) == [0, 0]
    files = {step: run.folder / "checkpoints" / f"step-{step:08d}.ckpt" for step in range(2, 6)}
    assert differences(file_state(files[2]), file_state(files[3])) == []
    assert differences(file_state(files[3]), file_state(files[4])) != []
    assert all(torch.isfinite(value).all() for value in file_state(files[5]).values())
    assert load_checkpoint(files[5])["callbacks"]["NonFiniteGuard"]["skipped_steps"] == 1


class FullDisk(Callback):
    """Rank zero's disk is full from step 2 on."""

    def setup(self, trainer, pl_module, stage):
        import shutil

        usage = shutil.disk_usage("/")
        shutil.disk_usage = lambda path: usage._replace(free=10)


def test_a_full_disk_on_rank_zero_leaves_no_rank_waiting(tmp_path):
    run, begun = Run(tmp_path / "run", steps=4, callbacks=[FullDisk()]), time.monotonic()
    # Rank zero says why, and its code is the run's: a launcher would kill it where another one failed first.
    assert run.in_ranks({}) == [1, 0]
    assert time.monotonic() - begun < 60
    assert "which was not saved" in (tmp_path / "error-0.txt").read_text()


class OwnHash(SameConfig):
    def setup(self, trainer, pl_module, stage):
        self.config_hash = f"hash-{trainer.global_rank}"
        super().setup(trainer, pl_module, stage)


def test_ranks_with_other_configurations_refuse_on_both(tmp_path):
    run = Run(tmp_path / "run", callbacks=[OwnHash()])
    assert run.in_ranks({}) == [2, 2]
    for rank in range(2):
        text = (tmp_path / f"error-{rank}.txt").read_text()
        assert text.startswith("ConfigError: rank 1 has another configuration than rank 0 (hash-1 and hash-0)")


class LossOfAll(Callback):
    """Writes what rank zero logs, and what the ranks have lost each, target by target."""

    def __init__(self, folder):
        self.folder, self.sums = folder, [0.0, 0]

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        count = int((batch["targets"] != IGNORE).sum())
        self.sums = [
            self.sums[0] + float(outputs["loss"]) * trainer.accumulate_grad_batches * count,
            self.sums[1] + count,
        ]

    def on_train_end(self, trainer, pl_module):
        logged = find_monitor(trainer).latest["train/loss"]
        (self.folder / f"loss-{trainer.global_rank}.json").write_text(json.dumps([logged, *self.sums]))


def test_the_logged_loss_is_the_mean_over_the_targets_of_both_ranks(tmp_path):
    run = Run(tmp_path / "run", steps=1, accumulate=2, val=100, callbacks=[LossOfAll(tmp_path)])
    assert run.in_ranks({}) == [0, 0]
    found = [json.loads((tmp_path / f"loss-{rank}.json").read_text()) for rank in range(2)]
    expected = sum(nats for _, nats, _ in found) / sum(count for *_, count in found)
    assert found[0][0] == found[1][0] == pytest.approx(expected, rel=1e-6)
    assert abs(found[0][1] / found[0][2] - expected) > 1e-4


class ValidatedAlike(Callback):
    """Writes what each rank knows of its validations, to the bit, and what Lightning recommends."""

    def __init__(self, folder):
        self.folder, self.seen = folder, []

    def on_validation_end(self, trainer, pl_module):
        self.seen.append({name: float(value).hex() for name, value in sorted(trainer.callback_metrics.items())})

    def on_train_end(self, trainer, pl_module):
        told = [str(item) for item in warning_cache if "sync_dist" in str(item)]
        (self.folder / f"val-{trainer.global_rank}.json").write_text(json.dumps([self.seen, told]))


def test_a_validation_gives_all_ranks_the_same_numbers_and_no_warning(tmp_path):
    run = Run(tmp_path / "run", steps=4, val=2, callbacks=[ValidatedAlike(tmp_path)])
    assert run.in_ranks({}) == [0, 0]
    (seen, told), other = (json.loads((tmp_path / f"val-{rank}.json").read_text()) for rank in range(2))
    assert [seen, told] == other
    assert (len(seen), "val/loss" in seen[0], told) == (2, True, [])
