"""Locks between processes: who waits, who is refused, and what happens where there are none."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys

import filelock
import pytest

from aptlab.errors import AptlabError
from aptlab.runs.lock import FolderLock, wait_for_lock

TRY = """
import sys
from aptlab.runs.lock import FolderLock
FolderLock.take(sys.argv[1])
"""


def refuse(number):
    def acquire(self, *args, **options):
        raise OSError(number, os.strerror(number))

    return acquire


def test_the_same_process_gets_the_same_lock(tmp_path):
    lock = FolderLock.take(tmp_path)
    assert FolderLock.take(tmp_path) is lock
    lock.release()
    lock.release()
    assert FolderLock.take(tmp_path) is not lock
    FolderLock.take(tmp_path).release()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_holds_no_lock_of_its_parent(tmp_path):
    lock = FolderLock.take(tmp_path)
    ready, done = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        lock.release()  # harmless: it is the parent's
        os.write(ready[1], b"x")
        os.read(done[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    probe = subprocess.run([sys.executable, "-c", TRY, str(tmp_path)], capture_output=True, text=True, check=False)
    lock.release()
    free = subprocess.run([sys.executable, "-c", TRY, str(tmp_path)], capture_output=True, text=True, check=False)
    os.write(done[1], b"x")
    os.waitpid(child, 0)
    assert f"is being written by process {os.getpid()}; wait for it" in probe.stderr
    assert free.returncode == 0, free.stderr


def test_a_file_system_without_locks_is_named_once_and_used(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(filelock.FileLock, "acquire", refuse(errno.ENOLCK))
    with caplog.at_level(logging.WARNING, logger="aptlab.runs"):
        FolderLock.take(tmp_path).release()
    assert "cannot be locked (No locks available): start no second run there" in caplog.text
    with wait_for_lock(tmp_path / "x.lock") as alone:
        assert not alone


def test_a_folder_that_cannot_be_written_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(filelock.FileLock, "acquire", refuse(errno.EROFS))
    with pytest.raises(AptlabError, match=r"cannot write to .*: Read-only file system; choose another run_dir"):
        FolderLock.take(tmp_path)


def test_the_second_one_waits_for_the_first(tmp_path):
    code = """
import sys
from aptlab.runs.lock import wait_for_lock
print("ready", flush=True)
with wait_for_lock(sys.argv[1]) as alone:
    print(alone, flush=True)
"""
    with wait_for_lock(tmp_path / "x.lock") as alone:
        assert alone
        other = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "x.lock")], stdout=-1, text=True)
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(timeout=0.3)
    assert other.communicate(timeout=30)[0] == "True\n"
