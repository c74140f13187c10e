"""How long idle OpenMP threads spin before they sleep; said before torch is loaded, which reads it once. No torch."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

CHOICES = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
SHORT = "10000"  # turns of GNU OpenMP's wait loop, some microseconds; its own default is 300,000
BUSY = 0.5  # share of the cores that others already use


def limit_idle_spin(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let idle threads sleep soon, or at once where the machine is busy; a user's own setting stays.

    A thread that spins while its partner waits for a core takes that core from it: beside one busy process, two
    threads with the default train several times slower than one.
    """
    if any(name in environment for name in CHOICES):
        return
    environment["GOMP_SPINCOUNT"] = "0" if measure_cpu_load() > BUSY else SHORT


def measure_cpu_load() -> float:
    """Processes that ran in the last minute, per core; 0 where the system does not tell."""
    try:
        return os.getloadavg()[0] / (os.cpu_count() or 1)
    except OSError:
        return 0.0
