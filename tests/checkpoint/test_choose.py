"""`ckpt=last` and `ckpt=best` mean one file, whoever asks."""

from __future__ import annotations

import logging
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from aptlab.checkpoint import choose_checkpoint, find_checkpoint, save_checkpoint
from aptlab.checkpoint.manifest import read_manifest, write_manifest
from aptlab.errors import CheckpointError


def save(
    run: str, step: int, metric: float | None = None, *, monitor: str = "val/loss", time: float = 0, **config: Any
):
    text = {"fingerprint": config.pop("fingerprint")} if "fingerprint" in config else {}
    path = Path("outputs", run, "checkpoints", f"step-{step:08d}.ckpt")
    mode = "max" if monitor == "accuracy" else "min"
    entry = {"step": step, "metric": metric, "monitor": monitor, "mode": mode, "config": config, **text}
    save_checkpoint({"aptlab": entry}, path)
    if time:
        import dataclasses

        write_manifest(path, dataclasses.replace(read_manifest(path), time=time))
    return path


OLD, NEW = "train/2026-01-02/100000-aaaa", "big/2026-01-03/100000-bbbb"


def test_last_is_of_the_newest_run_of_all_jobs_and_a_job_narrows_it(caplog):
    old, new = save(OLD, 900), save(NEW, 3)
    with caplog.at_level(logging.INFO, "aptlab"):
        assert choose_checkpoint("last") == new
    assert caplog.messages == [f"ckpt=last is {new}"]
    assert choose_checkpoint("last", job="train") == choose_checkpoint("outputs/train") == old
    with pytest.raises(CheckpointError, match=r"^outputs/tiny: no such file or folder, so ckpt=last finds no run"):
        choose_checkpoint("last", job="tiny")


def test_best_is_the_best_of_all_runs_and_not_of_the_newest():
    best, middle, worst = save(OLD, 400, 2.18), save(OLD, 500, 2.2), save(NEW, 20, 4.7)
    assert choose_checkpoint("best") == best
    assert choose_checkpoint("best", job="big") == worst
    best.write_bytes(b"damaged")
    assert choose_checkpoint("best") == middle


def test_runs_that_are_validated_otherwise_are_not_compared_and_are_named(caplog):
    mine = {"source": {"files": "a.txt"}, "data": {"batch": 4, "val_batches": 8}}
    save("train/2026-01-01/100000-aaaa", 10, 0.1, monitor="accuracy", **mine)
    save("train/2026-01-02/100000-bbbb", 10, 1.0, **{**mine, "source": {"files": "b.txt"}})
    good = save("train/2026-01-03/100000-cccc", 10, 2.0, **{**mine, "data": {"batch": 8, "val_batches": 4}})
    save("train/2026-01-04/100000-dddd", 10, 3.0, **mine)
    with caplog.at_level(logging.INFO, "aptlab"):
        assert choose_checkpoint("best") == good
    assert "not compared, for they are validated in another way" in caplog.messages[0]
    assert "100000-bbbb" in caplog.messages[0]
    assert "100000-aaaa" in caplog.messages[0]


def test_runs_on_other_content_of_one_file_are_not_compared(caplog):
    """`data.files=a.txt` named one text then, and another one now; a save of an earlier version does not say which."""
    mine = {"source": {"files": "a.txt"}}
    save("train/2026-01-01/100000-aaaa", 10, 0.1, **mine)
    save("train/2026-01-02/100000-bbbb", 10, 1.0, fingerprint="b" * 64, **mine)
    save("train/2026-01-03/100000-cccc", 10, 2.5, fingerprint="c" * 64, **mine)
    good = save("train/2026-01-04/100000-dddd", 10, 2.0, **mine)
    save("train/2026-01-04/100000-dddd", 20, 3.0, fingerprint="c" * 64, **mine)
    with caplog.at_level(logging.INFO, "aptlab"):
        assert choose_checkpoint("best") == good
    assert "100000-bbbb" in caplog.messages[0]
    assert "100000-aaaa" in caplog.messages[0]
    assert "100000-cccc" not in caplog.messages[0]


def test_the_metric_that_a_run_is_validated_by_last_is_the_one_that_counts():
    """A run resumed with monitor=val/ppl: the losses of before are small numbers of another kind."""
    save(OLD, 10, 4.2)
    save(OLD, 20, 90.0, monitor="val/ppl")
    best = save(OLD, 30, 70.0, monitor="val/ppl")
    save(OLD, 40, 80.0, monitor="val/ppl")
    assert find_checkpoint(Path("outputs", OLD), "best") == best
    up = save(NEW, 10, 0.9, monitor="accuracy")
    save(NEW, 20, 0.5, monitor="accuracy")
    assert choose_checkpoint("best") == up


def test_a_run_whose_folder_has_no_date_counts_by_its_newest_checkpoint():
    save(OLD, 1)
    mine = save("mine", 5, time=datetime(2026, 1, 2, 11).timestamp())
    assert choose_checkpoint("last") == mine
    new = save(NEW, 1)
    assert choose_checkpoint("last") == new


def test_best_without_a_metric_says_so():
    save(OLD, 1)
    with pytest.raises(CheckpointError, match=r"no valid checkpoint with a metric in outputs; name another"):
        choose_checkpoint("best")
