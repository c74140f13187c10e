"""The places where a run can be made to die."""

from __future__ import annotations

import os
import signal
import time

from aptlab import faults
from aptlab.faults import inject_fault


def death(variable: str, *reached: str) -> int | None:
    """The signal that killed a child which reached these places, or None."""
    pid = os.fork()
    if pid == 0:
        faults.reset_faults()
        os.environ[faults.VARIABLE] = variable
        for name in reached:
            inject_fault(name)
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else None


def test_the_nth_visit_of_the_named_place_kills():
    assert death("save.begin:2", "save.begin", "save.begin") == signal.SIGKILL
    assert death("save.begin:2", "save.begin", "other", "other") is None
    assert death("save.begin", "save.begin") == signal.SIGKILL
    assert death("save.begin:1:TERM", "save.begin") == signal.SIGTERM


def test_unset_it_costs_next_to_nothing():
    begun = time.perf_counter()
    for _ in range(10_000):
        inject_fault("train.batch")
    assert (time.perf_counter() - begun) / 10_000 < 2e-5
