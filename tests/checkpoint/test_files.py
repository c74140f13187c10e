"""Checkpoint files: whole or not at all, verified, plain, and found in the right order."""

from __future__ import annotations

import errno
import json
import logging
import os
import pickle
import random
import resource
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from aptlab.checkpoint import (
    AtomicIO,
    find_checkpoint,
    find_checkpoint_problem,
    is_valid,
    load_checkpoint,
    read_manifest,
    remove_partial_saves,
    save_checkpoint,
)
from aptlab.checkpoint.find import delete_checkpoint, list_checkpoints
from aptlab.checkpoint.manifest import Manifest, format_checkpoint_name, make_manifest_path
from aptlab.checkpoint.plain import estimate_checkpoint_size
from aptlab.checkpoint.stream import PIECE, HashingFile
from aptlab.errors import CheckpointError

ENTRY = {"version": 1, "config": {"seed": 3}, "overrides": ["seed=3"], "choices": {"rope": "yarn"}, "config_hash": "ab"}


def content(step: int = 1, metric: float | None = None, size: int = 300):
    weights = torch.randn(size, generator=torch.Generator().manual_seed(step))
    return {"state_dict": {"w": weights}, "aptlab": ENTRY | {"step": step, "metric": metric, "mode": "min"}}


def save(folder: Path, step: int, metric: float | None = None) -> Path:
    path = folder / format_checkpoint_name(step)
    save_checkpoint(content(step, metric), path)
    return path


def test_what_is_saved_comes_back_with_a_manifest_that_knows_it(tmp_path):
    path = save(tmp_path / "checkpoints", 40, 1.5)
    assert torch.equal(load_checkpoint(path)["state_dict"]["w"], content(40)["state_dict"]["w"])
    manifest = read_manifest(path)
    assert (manifest.step, manifest.metric, manifest.bytes) == (40, 1.5, path.stat().st_size)
    assert (manifest.config, manifest.overrides, manifest.choices) == ({"seed": 3}, ["seed=3"], {"rope": "yarn"})
    assert sorted(os.listdir(path.parent)) == ["step-00000040.ckpt", "step-00000040.json"]


def test_the_file_is_what_torch_save_writes(tmp_path):
    path = save(tmp_path, 1)
    again = torch.load(path, weights_only=True)
    assert again["aptlab"]["step"] == 1


@pytest.mark.parametrize("size", [0, 1, 1 << 16, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE + 77])
def test_the_hash_is_that_of_the_bytes_written(tmp_path, size):
    import hashlib

    data = random.Random(size).randbytes(size)
    with open(tmp_path / "x", "x+b", buffering=0) as raw:
        file = HashingFile(raw)
        file.write(b"head")
        assert file.write(data) == size
        digest = file.finish()
        file.close()
    assert (tmp_path / "x").read_bytes() == b"head" + data
    assert digest == hashlib.sha256(b"head" + data).hexdigest()
    assert file.bytes == size + 4


def test_finding_needs_no_torch():
    code = "import sys, aptlab.checkpoint as c; c.find; c.read_manifest; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


# Damage


def test_200_bit_flips_are_all_detected(tmp_path):
    path = save(tmp_path, 1)
    good, rng = path.read_bytes(), random.Random(0)
    for _ in range(200):
        place = rng.randrange(len(good) * 8)
        bad = bytearray(good)
        bad[place // 8] ^= 1 << place % 8
        path.write_bytes(bad)
        assert not is_valid(path)
        with pytest.raises(CheckpointError, match="does not match its sha256"):
            load_checkpoint(path)
    path.write_bytes(good)
    assert is_valid(path)


def test_bit_flips_of_the_manifest_are_detected_or_change_nothing(tmp_path):
    path = save(tmp_path, 1)
    manifest, rng = make_manifest_path(path), random.Random(1)
    good, known = manifest.read_bytes(), read_manifest(path)
    for _ in range(200):
        place = rng.randrange(len(good) * 8)
        bad = bytearray(good)
        bad[place // 8] ^= 1 << place % 8
        manifest.write_bytes(bad)
        if is_valid(path):
            assert read_manifest(path) == known
        else:
            assert "damaged" in find_checkpoint_problem(path)


@pytest.mark.parametrize("kept", [0.0, 0.001, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 0.999, "last byte"])
def test_truncation_is_detected_and_the_one_before_is_used(tmp_path, kept, caplog):
    folder = tmp_path / "run" / "checkpoints"
    before, newest = save(folder, 10), save(folder, 20)
    size = newest.stat().st_size
    os.truncate(newest, size - 1 if kept == "last byte" else int(size * kept))
    with caplog.at_level(logging.WARNING, "aptlab"):
        assert find_checkpoint(tmp_path / "run") == before
    assert f"passed over a checkpoint: {newest} is {'empty' if kept == 0 else 'truncated'}" in caplog.text
    with pytest.raises(CheckpointError, match=r"step-00000020.ckpt is (empty|truncated).*remove it to continue"):
        find_checkpoint(tmp_path / "run", strict=True)


MESSAGES = {
    "missing": (lambda path: path.unlink(), "no valid checkpoint|does not exist"),
    "empty": (lambda path: path.write_bytes(b""), r"step-00000010.ckpt is empty"),
    "longer": (lambda path: path.write_bytes(path.read_bytes() + b"x"), r"longer than it was: [\d,]+ bytes of [\d,]+"),
    "no manifest": (lambda path: make_manifest_path(path).unlink(), r"has no manifest \(step-00000010.json\)"),
    "manifest cut": (lambda path: os.truncate(make_manifest_path(path), 40), r"step-00000010.json is damaged"),
    "manifest bytes": (lambda path: make_manifest_path(path).write_bytes(b"\xff\xfe"), "damaged or unreadable"),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_messages_name_the_file_and_the_damage(tmp_path, name):
    path = save(tmp_path, 10)
    damage, message = MESSAGES[name]
    damage(path)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(path)
    with pytest.raises(CheckpointError, match=r"no valid checkpoint in|no such file or folder"):
        find_checkpoint(tmp_path)


def test_a_manifest_of_a_later_format_says_so(tmp_path):
    with pytest.raises(CheckpointError, match="has format 99, this aptlab reads 1; install a newer aptlab"):
        Manifest.parse(Manifest(sha256="", bytes=1, step=1, format=99).text())


# Finding


def test_a_named_file_is_taken_or_refused_never_replaced(tmp_path):
    good, bad = save(tmp_path, 10), save(tmp_path, 20)
    assert find_checkpoint(good) == good
    bad.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"step-00000020.ckpt is empty; use .*step-00000010.ckpt"):
        find_checkpoint(bad)
    good.unlink()
    with pytest.raises(CheckpointError, match="no valid one beside it"):
        find_checkpoint(bad)


def test_last_is_by_step_and_best_by_metric_not_by_time(tmp_path):
    folder = tmp_path / "checkpoints"
    paths = {
        step: save(folder, step, metric) for step, metric in [(300, 2.0), (20, None), (100, 1.0), (7, float("nan"))]
    }
    for age, path in enumerate(paths.values()):
        os.utime(path, (age, age))
    assert find_checkpoint(tmp_path) == find_checkpoint(folder) == paths[300]
    assert find_checkpoint(tmp_path, which="best") == paths[100]
    with pytest.raises(CheckpointError, match="worst: no such kind of checkpoint; allowed: best, last"):
        find_checkpoint(tmp_path, which="worst")


def test_the_newest_run_of_a_job_that_has_a_valid_one_is_used(tmp_path, caplog):
    job = tmp_path / "outputs" / "train"
    old = save(job / "2026-01-02" / "100000-aaaa" / "checkpoints", 500)
    new = save(job / "2026-01-10" / "000001-bbbb" / "checkpoints", 3)
    (job / "2026-02-01" / "120000-cccc").mkdir(parents=True)
    (job / "2026-02-01" / "130000-dddd" / "checkpoints").mkdir(parents=True)
    (job / "2026-02-01" / "130000-dddd" / "checkpoints" / "step-00000009.ckpt").write_bytes(b"half")
    os.utime(new, (1, 1))
    with caplog.at_level(logging.WARNING, "aptlab"):
        assert find_checkpoint(job) == find_checkpoint(tmp_path / "outputs") == new
    assert "130000-dddd/checkpoints/step-00000009.ckpt has no manifest" in caplog.text
    new.write_bytes(b"")
    assert find_checkpoint(job) == old


def test_jobs_of_a_sweep_are_ordered_as_numbers(tmp_path):
    sweep = tmp_path / "outputs" / "sweep" / "2026-01-02" / "100000-aaaa"
    save(sweep / "9" / "checkpoints", 500)
    tenth = save(sweep / "10" / "checkpoints", 3)
    assert find_checkpoint(tmp_path / "outputs") == tenth


def test_a_place_without_checkpoints_says_so(tmp_path):
    with pytest.raises(
        CheckpointError, match=r"no valid checkpoint in .*; name another folder, or train from the start"
    ):
        find_checkpoint(tmp_path)
    save(tmp_path, 1)
    with pytest.raises(CheckpointError, match=r"no such file or folder; it ends in .ckpt"):
        find_checkpoint(tmp_path / "step-00000001")


def test_remains_of_a_killed_save_are_removed_and_nothing_else(tmp_path):
    whole = save(tmp_path, 10)
    ours = [
        ".step-00000020.ckpt.0a1b2c3d.tmp",
        "step-00000020.ckpt",
        "step-00000030.json",
        ".step-00000010.json.00000000.tmp",
    ]
    theirs = ["notes.txt", "my.ckpt", "step-20.ckpt", ".hidden.tmp", "model.json"]
    for name in ours + theirs:
        (tmp_path / name).write_bytes(b"x")
    assert sorted(remove_partial_saves(tmp_path)) == sorted(ours)
    assert sorted(os.listdir(tmp_path)) == sorted([*theirs, whole.name, "step-00000010.json"])
    assert remove_partial_saves(tmp_path / "nowhere") == []


def test_remove_takes_the_manifest_first(tmp_path, monkeypatch):
    path, order = save(tmp_path, 10), []
    unlink = Path.unlink
    monkeypatch.setattr(Path, "unlink", lambda self, **k: (order.append(self.suffix), unlink(self, **k)))
    delete_checkpoint(path)
    assert order == [".json", ".ckpt"]
    assert list_checkpoints(tmp_path) == []


# What may be inside


Pair = namedtuple("Pair", "a b")


@dataclass
class Rule:
    factor: float = 2.0


def dict_config():
    from omegaconf import OmegaConf

    return OmegaConf.create({"a": 1})


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (np.float64(1.0), "numpy.float64"),
        (np.zeros(2), "numpy.ndarray"),
        (Rule(), "Rule"),
        (lambda: 1, "function"),
        (Pair(1, 2), "Pair"),
        ({1, 2}, "builtins.set"),
        (dict_config(), "omegaconf.dictconfig.DictConfig"),
    ],
)
def test_only_plain_things_are_saved_and_the_key_is_named(tmp_path, value, kind):
    state = content() | {"callbacks": {"Mine": {"x": [1, value]}}}
    with pytest.raises(CheckpointError, match=rf"checkpoint\['callbacks'\]\['Mine'\]\['x'\]\[1\] is a .*{kind}, which"):
        save_checkpoint(state, tmp_path / "step-00000001.ckpt")
    assert os.listdir(tmp_path) == []


def test_keys_are_plain_too(tmp_path):
    with pytest.raises(
        CheckpointError, match=r"a key of checkpoint\['a'\] is a aptlab|a key of checkpoint\['a'\] is a "
    ):
        save_checkpoint({"a": {(1, 2): 3}}, tmp_path / "x.ckpt")


def test_a_file_that_would_run_code_is_not_executed(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    path = save(tmp_path, 1)
    torch.save({"state_dict": {}, "evil": Evil()}, path)
    manifest = json.loads(make_manifest_path(path).read_text())
    from aptlab.checkpoint.manifest import hash_file, write_manifest

    write_manifest(path, Manifest(sha256=hash_file(path), bytes=path.stat().st_size, step=manifest["step"]))
    with pytest.raises(CheckpointError, match="cannot be read with weights_only=True"):
        load_checkpoint(path)
    assert not (tmp_path / "executed").exists()
    with pytest.raises(CheckpointError, match="weights_only=False would run code"):
        AtomicIO().load_checkpoint(path, weights_only=False)
    assert pickle.loads(pickle.dumps(1)) == 1


@pytest.mark.parametrize("door", [load_checkpoint, lambda path: save_checkpoint(content(), path)])
def test_urls_are_refused(door):
    with pytest.raises(CheckpointError, match="is a URL; download it"):
        door("https://example.org/step-00000001.ckpt")


def test_storage_options_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="storage_options is for remote storage"):
        AtomicIO().save_checkpoint(content(), tmp_path / "x.ckpt", storage_options={})


# Full and broken disks


def test_too_little_space_is_said_before_anything_is_written(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    before = save(tmp_path, 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1_500_000))
    with pytest.raises(
        CheckpointError, match=r"not enough space for .*step-00000002.ckpt: about 1.\d MB to write.*1.5 MB"
    ):
        save(tmp_path, 2)
    assert sorted(os.listdir(tmp_path)) == [before.name, "step-00000001.json"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
@pytest.mark.parametrize("where", ["write", "fsync", "replace", "manifest"])
def test_a_failing_disk_leaves_no_trace_and_no_damage(tmp_path, monkeypatch, code, where):
    before = save(tmp_path, 1)

    def fail(*args, **kwargs):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(*{
        "write": (HashingFile, "_put", fail),
        "fsync": (os, "fsync", fail),
        "replace": (os, "replace", fail),
        "manifest": (os, "replace", second_time(os.replace, fail)),
    }[where])  # fmt: skip
    with pytest.raises(
        CheckpointError, match=rf"cannot write .*{os.strerror(code)}.*earlier checkpoints are intact; free"
    ):
        save(tmp_path, 2)
    monkeypatch.undo()
    assert find_checkpoint(tmp_path) == before
    remove_partial_saves(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [before.name, "step-00000001.json"]


def second_time(first, then):
    calls = []

    def call(*args):
        calls.append(args)
        return first(*args) if len(calls) == 1 else then(*args)

    return call


def test_file_size_limit_of_the_system(tmp_path):
    """A real refusal in the middle of a real write (EFBIG), as a full disk would give."""
    report = tmp_path / "report.txt"
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        try:
            save_checkpoint({"w": torch.zeros(1 << 20)}, tmp_path / "ckpt" / "step-00000001.ckpt")
        except Exception as error:
            report.write_text(f"{type(error).__name__} {error}")
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0, "torch's zip writer took the process with it"
    assert report.read_text().startswith("NoSpaceError cannot write")
    assert "File too large" in report.read_text()
    assert os.listdir(tmp_path / "ckpt") == []


def test_size_counts_shared_memory_once():
    base = torch.zeros(1000)
    assert estimate_checkpoint_size({"a": base, "b": [base[:10], base.view(10, 100)]}) == 4000 + (1 << 20)
