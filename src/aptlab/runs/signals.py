"""Signals that ask a run to end: their exit codes, and how they are answered outside of the training loop. No torch.

While a run trains, `callbacks.stop` answers them at an optimizer step. Before that there is nothing to save, and after
it everything is saved, so there the work at hand is given up at once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from aptlab.errors import AptlabError

# exit codes as a shell reports a death by the signal; SIGUSR1 is the notice of a preemption, SIGTERM ahead of time
CODES = {"SIGTERM": 143, "SIGINT": 130, "SIGUSR1": 143, "SIGHUP": 129}
SIGNALS = [signal.Signals[name] for name in CODES if name in signal.Signals.__members__]


class Stopped(AptlabError):
    """The run was asked to stop and did, with everything saved. `exit_code` is 128 + the signal (143 for SIGUSR1).

    Ranks other than zero leave without a word and with code 0: launchers kill rank zero when another one "fails".
    """

    def __init__(self, message: str = "", exit_code: int = 143) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class SignalReceived(BaseException):
    """A signal came where the work at hand is to be given up. No Exception: nobody takes it for a failure of theirs."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.name = signal.Signals(number).name
        self.exit_code = CODES[self.name]


def list_open_signals() -> list[signal.Signals]:
    """The signals that ask a run to end, without a SIGHUP that is ignored: nohup means it."""
    return [number for number in SIGNALS if number.name != "SIGHUP" or signal.getsignal(number) is not signal.SIG_IGN]


@contextlib.contextmanager
def raise_signals() -> Iterator[None]:
    """Inside, the first signal raises SignalReceived and the second one kills; those that are ignored stay so.

    Children of the process die by them as ever. Only the main thread may set handlers: elsewhere nothing is done.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    owner, terminals = os.getpid(), list_terminals()
    before = {number: signal.getsignal(number) for number in SIGNALS}
    taken = [number for number, handler in before.items() if handler is not signal.SIG_IGN]

    received: list[
        int
    ] = []  # Lightning puts the handlers back that it found, so they cannot tell whether it is the first

    def answer(number: int, frame: FrameType | None) -> None:
        if received or os.getpid() != owner:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        received.append(number)
        leave_closed_terminal(number, terminals)
        raise SignalReceived(number)

    for number in taken:
        signal.signal(number, answer)
    try:
        yield
    finally:
        for number in taken:
            if before[number] is not None:  # None: not installed from Python, and cannot be put back from here
                signal.signal(number, before[number])


def list_terminals() -> list[int]:
    """Which of the output streams are a terminal; asked early, for one that was closed is no terminal any more."""
    return [handle for handle in (1, 2) if is_terminal(handle)]


def is_terminal(handle: int) -> bool:
    try:
        return os.isatty(handle)
    except OSError:
        return False


def leave_closed_terminal(number: int, terminals: list[int]) -> None:
    """After a SIGHUP: write to nowhere, where a word to the closed terminal would be an error of its own."""
    if signal.Signals(number).name != "SIGHUP" or not terminals:
        return
    with contextlib.suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for handle in terminals:
            os.dup2(nowhere, handle)
        os.close(nowhere)


def write_notice(text: str) -> None:
    """A line on stderr from inside a handler, where nothing may fail and no lock may be waited for."""
    with contextlib.suppress(OSError):
        os.write(2, f"{text}\n".encode())
