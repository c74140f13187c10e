"""Locks between processes: one writer per run folder, one builder per cache. The system drops them with their owner."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from aptlab.errors import AptlabError
from aptlab.runs.files import read_file_text, require_own_file

if TYPE_CHECKING:
    from filelock import FileLock

log = logging.getLogger("aptlab.runs")

# What file systems without locks answer (some network mounts, some containers).
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)
_taken: dict[Path, FolderLock] = {}


class FolderLock:
    """A lock on a folder, by the package filelock, that the system drops when its owner dies, however it dies.

    It is a lock on the file `.lock`, which names the owner's process id; forked workers do not inherit it. Taking it
    again in the same process gives the same lock back.
    """

    def __init__(self, folder: Path, lock: FileLock | None) -> None:
        self.folder = folder
        self._lock = lock
        self._pid = os.getpid()

    @classmethod
    def take(cls, folder: str | Path) -> FolderLock:
        """Lock a folder that exists; raises AptlabError naming the process that holds it."""
        folder = Path(folder).resolve()
        before = _taken.get(folder)
        if before is not None and before._pid == os.getpid():
            return before
        lock = cls(folder, _acquire(folder))
        _taken[folder] = lock
        return lock

    def release(self) -> None:
        """Give the folder free; harmless when repeated or called in a forked child."""
        if self._pid != os.getpid() or self._lock is None:
            return
        self._lock.release()
        self._lock = None
        _taken.pop(self.folder, None)


@contextlib.contextmanager
def wait_for_lock(path: str | Path) -> Iterator[bool]:
    """Hold the lock on a file, made if need be, after whoever has it; False where the file system has no locks."""
    from filelock import FileLock

    lock = FileLock(path, fallback_to_soft=False)
    try:
        lock.acquire()
    except OSError:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _acquire(folder: Path) -> FileLock | None:
    """The lock on a folder; None (with one warning) where the file system has no locks."""
    from filelock import FileLock, Timeout

    path = require_own_file(folder / ".lock")
    # A soft lock would outlive a killed owner, so none is better.
    lock = FileLock(path, fallback_to_soft=False, thread_local=False, on_acquired=_write_owner)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise AptlabError(
            f"{folder} is being written by process {_read_owner(path)}; wait for it, stop it, or choose another run_dir"
        ) from None
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno not in NO_LOCKS:
            raise AptlabError(f"cannot write to {folder}: {reason}; choose another run_dir or paths.root") from error
        log.warning("%s cannot be locked (%s): start no second run there", folder, reason)
        return None
    return lock


def _write_owner(handle: int) -> None:
    """Put our process id into the file that is locked."""
    os.ftruncate(handle, 0)
    os.write(handle, f"{os.getpid()}\n".encode())


def _read_owner(path: Path) -> str:
    with contextlib.suppress(OSError, ValueError):
        return read_file_text(path).strip() or "unknown"
    return "unknown"
