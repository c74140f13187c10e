"""kill -9 inside a save, at every point of it: what is there afterwards is whole."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from aptlab.checkpoint import find_checkpoint, is_valid
from aptlab.checkpoint.find import list_checkpoints
from tests.faults.parts import Run, differences, file_state

POINTS = ["begin", "mid_write", "after_write", "after_fsync", "after_rename", "after_manifest", "after_prune"]
OTHER = Path("/dev/shm")


def campaign(whole, folder: Path, points, saves) -> int:
    """Kill at each point of each save; every time, the newest valid checkpoint resumes to the same end."""
    tries = 0
    for point in points:
        for count in saves:
            run = Run(folder / f"{point}-{count}", every=1, steps=10, val=5, checkpoints={"keep": 2})
            nth = 3 * count if point == "mid_write" else count
            code = run.in_child(f"save.{point}:{nth}")
            assert code == 137, f"the fault save.{point}:{nth} was not reached"
            tries += 1
            for path in list_checkpoints(run.folder / "checkpoints"):
                assert is_valid(path, deep=True) or not path.with_suffix(".json").exists(), f"{path} looks complete"
            assert run.in_child(ckpt=run.last() if has_valid(run) else None) == 0
            assert differences(file_state(run.last()), whole) == []
            left = sorted(name for name in os.listdir(run.folder / "checkpoints") if name != ".reserve")
            assert not [name for name in left if name.endswith(".tmp")], "orphans survived the next start"
            aside = [name for name in left if name.endswith(".unverified")]
            assert not aside, "a manifest that was pending gets its name: nothing is left over, however many kills"
            assert len(left) - len(aside) in (4, 6)
    return tries


def has_valid(run: Run) -> bool:
    return any(is_valid(path) for path in list_checkpoints(run.folder / "checkpoints"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return Run(tmp_path_factory.mktemp("whole") / "run", every=1, steps=10, val=5).train().state()


@pytest.mark.slow
def test_50_kills_inside_save(whole, tmp_path):
    assert campaign(whole, tmp_path, POINTS, range(1, 9)) >= 50


@pytest.mark.slow
@pytest.mark.skipif(not OTHER.is_dir(), reason="no /dev/shm: no second file system to put TMPDIR on")
def test_50_kills_inside_save_with_tmpdir_on_another_file_system(whole, tmp_path, monkeypatch):
    import shutil
    import tempfile

    other = Path(tempfile.mkdtemp(dir=OTHER))
    try:
        assert other.stat().st_dev != tmp_path.stat().st_dev
        monkeypatch.setenv("TMPDIR", str(other))
        monkeypatch.setattr(tempfile, "tempdir", None)
        assert campaign(whole, tmp_path, POINTS, range(1, 9)) >= 50
        assert os.listdir(other) == [], "a save wrote outside the run folder"
    finally:
        shutil.rmtree(other)


def test_damaged_files_are_passed_over_when_resuming(whole, tmp_path):
    run = Run(tmp_path / "run", every=1, steps=10, val=5)
    assert run.in_child("train.batch:9") == 137
    newest = find_checkpoint(run.folder)
    newest.write_bytes(newest.read_bytes()[:-7])
    before = find_checkpoint(run.folder)
    assert before.name == "step-00000007.ckpt"
    assert differences(run.train(before).state(), whole) == []
