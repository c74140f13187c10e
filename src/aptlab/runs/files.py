"""Files of a run folder, opened for what they are: a link, a pipe or a device among them is refused by name.

A run folder comes by mail or from a shared disk, and goes on as if it were one's own: rows are appended, ends are cut
off, results are replaced. A symbolic link inside it would do that to any file that the user may write, and so would a
hard link, as an archive may hold one: that may be read, and is not written in place. Every reader and writer of such a
file opens it here. The folder itself may be a link, as outputs/ often is. No torch.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

from aptlab.bounded import PLAIN, Bounds, parse_json, read_bounded
from aptlab.errors import AptlabError

INNER = ("checkpoints", "results", "evals", "wandb")  # folders of a run folder
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_NO_WAIT = getattr(os, "O_NONBLOCK", 0)  # opening a pipe waits for its other end otherwise


class UnsafeFileError(AptlabError):
    """A file of a run folder that is a link, or no file at all; the message names it and the way out."""


def open_file(path: str | Path, mode: str = "r", **text: Any) -> Any:
    """`open` for a file of a run folder: never through a link, and nothing but a plain file, to write one of one name.

    Raises UnsafeFileError naming it, and OSError as `open` does.
    """
    path = Path(path)
    refuse_link(path)  # for a system without O_NOFOLLOW, and for the name of the target

    def opener(name: str, flags: int) -> int:
        handle = os.open(name, flags & ~os.O_TRUNC | _NO_LINK | _NO_WAIT, 0o666)
        status, writes = os.fstat(handle), flags & (os.O_WRONLY | os.O_RDWR)
        kind = status.st_mode
        if stat.S_ISREG(kind) and not (writes and status.st_nlink > 1):
            if flags & os.O_TRUNC:  # only now that it is known to be a file of its own
                os.ftruncate(handle, 0)
            return handle
        os.close(handle)
        if stat.S_ISREG(kind):
            raise _make_names_error(path)
        if stat.S_ISDIR(kind):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), name)
        raise _make_no_file_error(path)

    try:
        return open(path, mode, opener=opener, **text)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _make_link_error(path) from None
        if error.errno == errno.ENXIO:  # a pipe that nobody reads, or a socket
            raise _make_no_file_error(path) from None
        raise


def refuse_link(path: str | Path) -> Path:
    """The path itself; UnsafeFileError for a link, a pipe or a device; for libraries that open it themselves."""
    path = Path(path)
    try:
        kind = os.lstat(path).st_mode
    except OSError:
        return path  # missing, or told by who opens it
    if stat.S_ISLNK(kind):
        raise _make_link_error(path)
    if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):
        raise _make_no_file_error(path)
    return path


def require_own_file(path: str | Path) -> Path:
    """The path itself, for who writes into it in place; UnsafeFileError as `refuse_link`, and for a hard link."""
    path = refuse_link(path)
    if path.is_file() and os.lstat(path).st_nlink > 1:
        raise _make_names_error(path)
    return path


def refuse_linked_folders(run: str | Path) -> None:
    """UnsafeFileError where a folder inside a run folder is a link that leads out of it."""
    for name in INNER:
        require_inner_folder(Path(run) / name)


def require_inner_folder(folder: str | Path) -> Path:
    """A folder inside a run folder; UnsafeFileError where it is a link that leads out of that."""
    folder = Path(folder)
    if folder.is_symlink():
        target, home = os.path.realpath(folder), os.path.realpath(folder.parent)
        if os.path.commonpath([target, home]) != home:
            raise UnsafeFileError(
                f"{folder} is a link to {target}, outside of its run folder, and aptlab writes through no link there; "
                "put the folder itself in its place, or let the whole run folder be a link"
            )
    return folder


def read_file_text(path: str | Path, bounds: Bounds = PLAIN) -> str:
    """The text of a file of a run folder; ValueError for too much of it or what is not UTF-8, OSError."""
    with open_file(path, "rb") as file:
        return read_bounded(file, bounds)


def read_file_json(path: str | Path, bounds: Bounds = PLAIN) -> Any:
    """The value of a JSON file of a run folder; ValueError for what is none, OSError."""
    return parse_json(read_file_text(path, bounds), bounds)


def _make_link_error(path: Path) -> UnsafeFileError:
    try:
        target = f" to {os.readlink(path)}"
    except OSError:
        target = ""
    return UnsafeFileError(
        f"{path} is a link{target}; files of a run folder are never opened through links: put the file itself in its "
        "place, or take the link away"
    )


def _make_names_error(path: Path) -> UnsafeFileError:
    return UnsafeFileError(
        f"{path} has another name somewhere (it is a hard link), and what is written here would change it there: put a "
        "copy in its place"
    )


def _make_no_file_error(path: Path) -> UnsafeFileError:
    return UnsafeFileError(f"{path} is no file (a pipe, socket or device); take it away")
