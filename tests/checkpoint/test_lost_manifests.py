"""Checkpoints whose manifest is lost or was pending: what is proven counts, what is whole is kept, half a save goes."""

from __future__ import annotations

import logging
import os
import random

import pytest

from aptlab.checkpoint import find_checkpoint, remove_partial_saves, save_checkpoint
from aptlab.checkpoint.adopt import adopt_checkpoint
from aptlab.checkpoint.aside import is_whole_archive
from aptlab.checkpoint.manifest import find_checkpoint_problem, make_pending_path, read_manifest
from aptlab.errors import CheckpointError


def save(folder, step, value=1.0):
    import torch

    path = folder / f"step-{step:08d}.ckpt"
    entry = {"step": step, "metric": 2.5, "monitor": "val/loss", "mode": "min", "config": {"seed": 1}}
    save_checkpoint({"state_dict": {"w": torch.full((40,), value)}, "global_step": step, "aptlab": entry}, path)
    return path


def test_a_whole_checkpoint_whose_manifest_is_lost_is_set_aside_and_half_a_save_removed(tmp_path, caplog):
    kept, lost, half = save(tmp_path, 1), save(tmp_path, 2), save(tmp_path, 3)
    data = lost.read_bytes()
    lost.with_suffix(".json").unlink()
    half.with_suffix(".json").unlink()
    half.write_bytes(half.read_bytes()[:-40])
    assert remove_partial_saves(tmp_path) == [half.name]
    aside = tmp_path / "step-00000002.ckpt.unverified"
    assert aside.read_bytes() == data
    assert "step-00000002.ckpt has no manifest, but is whole: kept as step-00000002.ckpt.unverified" in caplog.text
    assert find_checkpoint(tmp_path) == kept
    assert remove_partial_saves(tmp_path) == []
    save(tmp_path, 2, value=9.0)  # the step is saved again, with other bytes
    assert remove_partial_saves(tmp_path) == []
    assert aside.exists()
    (tmp_path / "step-00000002.ckpt").with_suffix(".json").unlink()
    remove_partial_saves(tmp_path)
    assert (tmp_path / "step-00000002.ckpt.unverified-2").exists()


def test_a_manifest_that_was_pending_counts_for_the_file_that_it_names_and_for_no_other(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "aptlab")
    old, path = save(tmp_path, 1), save(tmp_path, 2)
    for number in range(3):  # killed right before the last rename, again and again
        os.replace(path.with_suffix(".json"), pending := make_pending_path(path))
        assert (find_checkpoint(tmp_path), read_manifest(path).step) == (path, 2)
        assert remove_partial_saves(tmp_path) == []
        assert caplog.text.count(f"{path} was saved whole just before the run was killed, and counts") == number + 1
    names = [old.name, old.with_suffix(".json").name, path.name, path.with_suffix(".json").name]
    assert sorted(os.listdir(tmp_path)) == sorted(names)
    os.replace(path.with_suffix(".json"), pending)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert find_checkpoint(tmp_path) == old
    assert pending.name in remove_partial_saves(tmp_path)
    assert not pending.exists()


def test_what_was_set_aside_goes_once_the_same_bytes_are_saved_with_a_manifest(tmp_path):
    path = save(tmp_path, 4)
    aside = tmp_path / f"{path.name}.unverified"
    aside.write_bytes(path.read_bytes())
    assert remove_partial_saves(tmp_path) == [aside.name]
    assert find_checkpoint(tmp_path) == path


def test_a_checkpoint_that_was_set_aside_can_be_taken_in_again(tmp_path):
    path = save(tmp_path, 5)
    path.with_suffix(".json").unlink()
    remove_partial_saves(tmp_path)
    assert adopt_checkpoint(tmp_path / f"{path.name}.unverified") == path
    assert find_checkpoint_problem(path) is None
    assert find_checkpoint(tmp_path) == path
    with pytest.raises(CheckpointError, match=r"is there already and has a manifest; move it away first"):
        adopt_checkpoint(path)
    with pytest.raises(
        CheckpointError, match=r"no such file; give a checkpoint, or one that ends in \.ckpt\.unverified"
    ):
        adopt_checkpoint(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match=r"is no checkpoint; give a file that ends in"):
        adopt_checkpoint(path.with_suffix(".json"))


def test_the_archive_tells_every_changed_byte_of_the_content(tmp_path):
    path = save(tmp_path, 6)
    data, rng = bytearray(path.read_bytes()), random.Random(0)
    start = data.index(b"\x00\x00\x80\x3f" * 40)
    for at in rng.sample(range(start, start + 160), 20):
        damaged = bytearray(data)
        damaged[at] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        assert not is_whole_archive(path)
    path.write_bytes(data)
    assert is_whole_archive(path)
    path.with_suffix(".json").unlink()
    path.write_bytes(data[:-50])
    with pytest.raises(CheckpointError, match=r"is damaged: its archive is not whole; use another checkpoint"):
        adopt_checkpoint(path)
