"""What ranks leave for each other, and what a thread may say while the main one cannot. No torch."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from aptlab.redact import redact_text

LONGEST = 600  # characters of a line
LEAVE = 3.0  # seconds for the end of Python
BRIEF = 1.0  # seconds that the end of a run waits for a call
NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)  # not on Windows


@dataclass(frozen=True, kw_only=True)
class Message:
    """Why a rank ends, or why all of them do.

    victims  processes to end as well: [host, process, its birth]
    """

    rank: int
    text: str
    code: int = 1
    victims: tuple[tuple[str, int, str], ...] = ()

    def encode(self) -> str:
        """The message as text."""
        return json.dumps(asdict(self))

    @classmethod
    def decode(cls, text: str) -> Message | None:
        """The message of a text; None for one that is none."""
        try:
            found = json.loads(text)
            victims = tuple((str(host), int(pid), str(born)) for host, pid, born in found.pop("victims"))
            return cls(**found, victims=victims)
        except (ValueError, TypeError, KeyError, AttributeError):
            return None


def flatten_reason(text: str) -> str:
    """A message of another rank as one line that a terminal can show, secrets hidden."""
    line = " ".join("".join(sign if sign.isprintable() else " " for sign in redact_text(text)).split())
    return line if len(line) <= LONGEST else f"{line[:LONGEST]} …"


def write_notice(text: str, folder: Path | None) -> None:
    """One line on stderr and in the folder's log.txt, past Python's locks, which the main thread may hold."""
    line = f"{redact_text(text)}\n"
    run_briefly(lambda: os.write(2, line.encode()))
    if folder is None:
        return
    stamped = f"{time.strftime('%Y-%m-%d %H:%M:%S')},000 ERROR aptlab: {line}"
    run_briefly(lambda: append_line(folder / "log.txt", stamped))


def append_line(path: Path, line: str) -> None:
    """Add to a file that is there, following no link."""
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | NOFOLLOW)
        try:
            os.write(handle, line.encode())
        finally:
            os.close(handle)


def run_briefly(call: Callable[[], Any], seconds: float = BRIEF) -> Any:
    """The call's result, or None where it fails or takes longer: the end of a run must not wait for a dead disk."""
    results: list[Any] = []

    def work() -> None:
        with contextlib.suppress(OSError, ValueError, RuntimeError):
            results.append(call())

    thread = threading.Thread(target=work, name="rank-brief", daemon=True)
    thread.start()
    thread.join(seconds)
    return results[0] if results else None


def leave_soon(code: int, seconds: float = LEAVE, leave: Callable[[int], Any] = os._exit) -> None:
    """End the process with this code at the end of Python's work, or in some seconds if that does not come.

    The threads of a process group may hold a process back where Python has stopped all of its own.
    """

    def end() -> None:
        flush_outputs()
        leave(code)

    def wait() -> None:
        time.sleep(seconds)
        end()

    atexit.register(end)
    threading.Thread(target=wait, name="rank-leave", daemon=True).start()


def flush_outputs() -> None:
    """What was printed goes out before the process leaves without Python's own end."""
    for stream in (sys.stdout, sys.stderr):
        run_briefly(stream.flush)
