"""A file that is hashed while it is written. No torch."""

from __future__ import annotations

import hashlib
import os
import threading
from typing import Any, BinaryIO

from aptlab.faults import inject_fault

PIECE = 1 << 22  # bytes that are hashed at a time


class HashingFile:
    """Wraps an unbuffered binary file opened for reading and writing ("r+b"): sha256 in a thread behind the writer.

    The thread reads back what was written, out of the page cache, so that writing never waits for hashing, one piece
    of memory is enough, and syncing to the disk runs beside the end of the hash.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.bytes = 0
        self._file = file
        self._digest = hashlib.sha256()
        self._hashed = 0
        self._ended = False
        self._error: Exception | None = None
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def write(self, data: Any) -> int:
        """Write all of `data` (bytes or anything with a buffer)."""
        view = memoryview(data).cast("B")
        self._put(view)
        with self._news:
            self.bytes += len(view)
            if self.bytes - self._hashed >= PIECE:
                self._news.notify()
        inject_fault("save.mid_write")
        return len(view)

    def _put(self, view: memoryview) -> None:
        done = 0
        while done < len(view):
            done += self._file.write(view[done:])

    def flush(self) -> None:
        """What torch.save asks for; the file is unbuffered."""

    def finish(self) -> str:
        """Cut off what was there behind the written bytes, bring everything to the disk; returns the sha256 in hex."""
        self._end()
        self._file.truncate(self.bytes)
        os.fsync(self._file.fileno())
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._digest.hexdigest()

    def close(self) -> None:
        """End the thread, also when writing failed."""
        self._end()
        self._thread.join()

    def _end(self) -> None:
        with self._news:
            self._ended = True
            self._news.notify()

    def _follow(self) -> None:
        """Hash what is written, a piece at a time, until the end."""
        buffer = memoryview(bytearray(PIECE))
        try:
            while True:
                with self._news:
                    self._news.wait_for(lambda: self._ended or self.bytes - self._hashed >= PIECE)
                    left = self.bytes - self._hashed
                if not left:
                    return
                count = os.preadv(self._file.fileno(), [buffer[: min(left, PIECE)]], self._hashed)
                if not count:
                    raise OSError(0, "the file became shorter while it was written")
                self._digest.update(buffer[:count])
                self._hashed += count
        except Exception as error:
            self._error = error
