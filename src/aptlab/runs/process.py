"""Processes of this machine by number, whether one is alive, and the collective that a thread is in. No torch."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType

COLLECTIVES = "torch.distributed.distributed_c10d"
BACKWARD = ("torch.autograd.graph", "_engine_run_backward")
INNER = ("wrapper", "<lambda>")


def read_birth(pid: int) -> str:
    """When a process began, in the system's own count; "" for one that is gone or dead, or where /proc is missing."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def is_gone(pid: int, born: str) -> bool:
    """Whether the process that began then has ended; False where that cannot be known."""
    return bool(born) and read_birth(pid) != born


def kill_process(pid: int, born: str) -> bool:
    """SIGKILL to the process that began then, which also ends one that is stopped; whether it was there."""
    if not born or read_birth(pid) != born or pid == os.getpid():
        return False
    try:
        os.kill(pid, signal.SIGKILL)
    except OSError:
        return False
    return True


def describe_end(code: int) -> str:
    """How a child ended, from the return code that `subprocess` gives."""
    if code >= 0:
        return f"ended with code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def read_wait(thread: int | None, *, idle: bool) -> str:
    """The collective that a thread is in, as `all_reduce (stop.py:143)`; "" for none.

    thread  its `ident`
    idle    whether the process has just used no CPU: only then is a backward pass a wait for the other ranks
    """
    frame = sys._current_frames().get(thread or 0)  # documented for looking at deadlocks
    return "" if frame is None else find_collective(frame, idle=idle)


def find_collective(frame: FrameType | None, *, idle: bool) -> str:
    """The outermost call of torch.distributed on a stack, and who called it."""
    found, caller = "", None
    while frame is not None:
        module, name = frame.f_globals.get("__name__", ""), frame.f_code.co_name
        if module == COLLECTIVES and name not in INNER:
            found, caller = name, frame.f_back
        elif module == COLLECTIVES or module == "torch.distributed.c10d_logger":
            caller = frame.f_back
        elif not found and idle and (module, name) == BACKWARD:
            found, caller = "backward", None
        frame = frame.f_back
    while caller is not None and caller.f_globals.get("__name__", "").startswith("torch.distributed"):
        caller = caller.f_back
    if not found or caller is None:
        return found
    return f"{found} ({Path(caller.f_code.co_filename).name}:{caller.f_lineno})"
