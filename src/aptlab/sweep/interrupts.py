"""SIGINT, SIGTERM and SIGHUP of a sweep, turned into a file that every worker can see, on any machine."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from aptlab.runs.signals import leave_closed_terminal, list_terminals
from aptlab.shown import print_shown
from aptlab.sweep.child import KILL_NOW, write_stop_signal


class Interrupts:
    """While entered, a signal is noted and written to the stop file instead of ending this process.

    The first one asks all jobs to save and end; the second one kills them.
    """

    def __init__(self, stop: Path) -> None:
        self.signal: int | None = None
        self._stop = stop
        self._before: dict[int, Any] = {}
        self._terminals = list_terminals()

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for name in ("SIGINT", "SIGTERM", "SIGHUP"):
                number = getattr(signal, name, None)
                if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # nohup stays in force
                    self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *problem: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        first = self.signal is None
        if first:
            self.signal = number
        write_stop_signal(self._stop, str(int(number)) if first else KILL_NOW)
        leave_closed_terminal(number, self._terminals)
        print_shown(
            "stopping: jobs save their state and end; once more kills them" if first else "stopping now", flush=True
        )
