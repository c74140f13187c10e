"""Space on the disk that is held for one more checkpoint, so that the last one of a run always fits. No torch."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from pathlib import Path

NAME = ".reserve"
SPARE = 1 << 16  # bytes beside the checkpoint: its manifest, and a state that grows a little


def measure_reserve(folder: str | Path) -> int:
    """Bytes that are held in a folder of checkpoints, 0 for none; a link of any kind is none: a save writes into it."""
    try:
        found = os.lstat(Path(folder) / NAME)
    except OSError:
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) and found.st_nlink == 1 else 0


def hold_reserve(folder: str | Path, size: int) -> str | None:
    """Hold space for a checkpoint of `size` bytes; why that cannot be, or None.

    The blocks are allocated, not written. A save asks for twice its size as it is (free and held), so holding one of
    the two takes nothing that was free to be used; where there is less, nothing is held. One that an earlier start left
    is taken over.
    """
    path, wanted = Path(folder) / NAME, size + size // 64 + SPARE
    held = measure_reserve(folder)
    if held >= wanted:
        return None
    try:
        free = shutil.disk_usage(path.parent).free
        if free + held < wanted + size:
            return f"{free / 1e6:,.1f} MB are free, {(wanted + size - held) / 1e6:,.1f} MB are wanted"
        if held == 0 and not path.is_symlink():
            path.unlink(missing_ok=True)  # a hard link; the other name keeps its file
        allocate_file(path, wanted)
    except OSError as error:
        release_reserve(folder)
        return error.strerror or str(error)
    return None


def allocate_file(path: Path, size: int) -> None:
    """Make a file, or a longer one, whose blocks are all there; OSError where the system or the disk cannot."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0), 0o666)
    try:
        allocate = getattr(os, "posix_fallocate", None)
        if allocate is None:
            raise OSError(0, "this system cannot hold space on a disk")
        allocate(handle, 0, size)
    finally:
        os.close(handle)


def release_reserve(folder: str | Path) -> None:
    """Give the space back."""
    with contextlib.suppress(OSError):  # a folder that cannot be written any more
        (Path(folder) / NAME).unlink(missing_ok=True)
