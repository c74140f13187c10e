"""A file that is hashed while it is written. No torch."""

from __future__ import annotations

import hashlib
import os
import threading
from typing import Any, BinaryIO

from aptlab.faults import fault

PIECE = 1 << 23  # bytes that are hashed and written at a time
SYNC = 1 << 27  # bytes after which the disk is asked to start


class HashingFile:
    """Wraps a binary file opened for writing: sha256 runs in a thread beside the write, nothing is copied.

    Both see the same memory and both are done with it when `write` returns. Long files are handed to the disk on the
    way by another thread, so that the last fsync finds little to do.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.bytes = 0
        self._file = file
        self._digest = hashlib.sha256()
        self._hasher = _Worker(self._digest.update)
        self._syncer = _Worker(os.fdatasync if hasattr(os, "fdatasync") else os.fsync)
        self._unsynced = 0

    def write(self, data: Any) -> int:
        """Write all of `data` (bytes or anything with a buffer)."""
        view = memoryview(data).cast("B")
        for start in range(0, len(view), PIECE):
            piece = view[start : start + PIECE]
            long = len(piece) > 1 << 16
            if long:
                self._hasher.give(piece)
            else:
                self._digest.update(piece)
            try:
                self._put(piece)
            finally:
                if long:
                    self._hasher.wait()
            fault("save.mid_write")
        self.bytes += len(view)
        return len(view)

    def _put(self, piece: memoryview) -> None:
        done = 0
        while done < len(piece):
            done += self._file.write(piece[done:])
        self._unsynced += len(piece)
        if self._unsynced >= SYNC and self._syncer.idle:
            self._unsynced = 0
            self._syncer.give(self._file.fileno())

    def flush(self) -> None:
        """What torch.save asks for; the file is unbuffered."""

    def finish(self) -> str:
        """Bring everything to the disk; returns the sha256 in hex."""
        self._syncer.wait()
        os.fsync(self._file.fileno())
        return self._digest.hexdigest()

    def close(self) -> None:
        """End the threads."""
        self._hasher.close()
        self._syncer.close()


class _Worker:
    """One thread that calls `work` on one item at a time; an exception is raised by `wait`."""

    def __init__(self, work: Any) -> None:
        self._work = work
        self._item: Any = None
        self._error: BaseException | None = None
        self._ready, self._done = threading.Semaphore(0), threading.Event()
        self._done.set()
        self._thread: threading.Thread | None = None

    @property
    def idle(self) -> bool:
        return self._done.is_set()

    def give(self, item: Any) -> None:
        self.wait()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()
        self._item = (item,)
        self._done.clear()
        self._ready.release()

    def wait(self) -> None:
        self._done.wait()
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def close(self) -> None:
        self._done.wait()
        if self._thread is not None:
            self._item = None
            self._ready.release()
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while True:
            self._ready.acquire()
            if self._item is None:
                return
            try:
                self._work(self._item[0])
            except BaseException as error:
                self._error = error
            self._item = ()
            self._done.set()
