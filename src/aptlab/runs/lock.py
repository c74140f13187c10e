"""One writer per run folder."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path

from aptlab.errors import AptlabError

log = logging.getLogger("aptlab.runs")

_held: dict[Path, FolderLock] = {}


class FolderLock:
    """A lock on a folder that the system drops when its owner dies, however it dies.

    It is a POSIX record lock on `.lock`: not inherited by forked workers, held across network file
    systems that support locks. The file names the owner's process id. Taking it again in the same
    process gives the same lock back.
    """

    def __init__(self, folder: Path, handle: int | None) -> None:
        self.folder = folder
        self._handle = handle
        self._pid = os.getpid()

    @classmethod
    def take(cls, folder: str | Path) -> FolderLock:
        """Lock a folder that exists; raises AptlabError naming the process that holds it."""
        folder = Path(folder).resolve()
        held = _held.get(folder)
        if held is not None and held._pid == os.getpid():
            return held
        handle = _open(folder / ".lock")
        lock = cls(folder, handle if _acquire(handle, folder) else None)
        _held[folder] = lock
        return lock

    def release(self) -> None:
        """Give the folder free; harmless when repeated or called in a forked child."""
        if self._pid != os.getpid() or self._handle is None:
            return
        os.ftruncate(self._handle, 0)
        os.close(self._handle)
        self._handle = None
        _held.pop(self.folder, None)


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)
    except OSError as error:
        raise AptlabError(
            f"cannot write to {path.parent}: {error.strerror}; choose another run_dir or paths.root"
        ) from error


def _acquire(handle: int, folder: Path) -> bool:
    """Whether the lock is ours; False (with one warning) where the file system has no locks."""
    try:
        import fcntl
    except ImportError:
        return _unlocked(handle, folder, "this system has no file locks")
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            return _unlocked(handle, folder, str(error.strerror))
        owner = os.read(handle, 32).decode("ascii", "replace").strip() or "unknown"
        os.close(handle)
        raise AptlabError(
            f"{folder} is being written by process {owner}; wait for it, stop it, or choose another run_dir"
        ) from None
    os.ftruncate(handle, 0)
    os.write(handle, f"{os.getpid()}\n".encode())
    return True


def _unlocked(handle: int, folder: Path, why: str) -> bool:
    os.close(handle)
    log.warning("%s cannot be locked (%s): start no second run there", folder, why)
    return False
