"""Named places where a test can make the process die: APTLAB_FAULT=name:count, name:count:WHAT or name:count:WHAT:rank.

`inject_fault("save.after_rename")` does nothing unless the variable names that place; the `count`-th time,
the process sends itself the signal (SIGKILL unless another is named, such as TERM), or, for FAIL and HANG, raises
TrainingError or waits for ever. With a rank, only that one does, and says so on stderr. No torch.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter

from aptlab.errors import TrainingError

VARIABLE = "APTLAB_FAULT"
REACHED = "a test has come to"
_reached: Counter[str] = Counter()


def inject_fault(name: str) -> None:
    """Die here if the environment says so."""
    fault = os.environ.get(VARIABLE)
    if fault is None:
        return
    place, _, rest = fault.partition(":")
    if place != name:
        return
    _reached[name] += 1
    count, word, rank = (*rest.split(":"), "", "")[:3]
    if _reached[name] != int(count or 1) or (
        rank and rank != os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))
    ):
        return
    if rank:
        os.write(2, f"{REACHED} {name}\n".encode())
    if word == "FAIL":
        raise TrainingError(f"a test asked for a failure at {name}")
    while word == "HANG":
        time.sleep(1)
    os.kill(os.getpid(), signal.Signals[f"SIG{word or 'KILL'}"])


def reset_faults() -> None:
    """Count from zero again (tests that run several campaigns in one process)."""
    _reached.clear()
