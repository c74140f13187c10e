"""Named places where a test can make the process die: APTLAB_FAULT=name:count or name:count:SIGNAL.

`fault("save.after_rename")` does nothing unless the variable names that place; the `count`-th time it is reached, the
process sends itself the signal (SIGKILL unless another is named, such as TERM). No torch.
"""

from __future__ import annotations

import os
import signal
from collections import Counter

VARIABLE = "APTLAB_FAULT"
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
    count, _, word = rest.partition(":")
    if _reached[name] == int(count or 1):
        os.kill(os.getpid(), signal.Signals[f"SIG{word or 'KILL'}"])


def reset_faults() -> None:
    """Count from zero again (tests that run several campaigns in one process)."""
    _reached.clear()
