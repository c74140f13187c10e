"""What a block changes in its process is put back, however it ends."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import warnings

import pytest

from aptlab.runs.preserve import preserve_environment, preserve_logging, preserve_signals


def test_variables_and_arguments_are_put_back(monkeypatch):
    monkeypatch.setenv("APTLAB_TEST_OLD", "old")
    before, argv, values = dict(os.environ), sys.argv, list(sys.argv)

    @preserve_environment()
    def fail() -> None:
        os.environ["APTLAB_TEST_NEW"] = "new"
        del os.environ["APTLAB_TEST_OLD"]
        sys.argv[:] = ["other"]
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert dict(os.environ) == before
    assert sys.argv is argv
    assert sys.argv == values


def test_signal_handlers_are_put_back():
    before = signal.getsignal(signal.SIGUSR1), signal.getsignal(signal.SIGTERM)
    with preserve_signals():
        signal.signal(signal.SIGUSR1, lambda *_: None)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    assert (signal.getsignal(signal.SIGUSR1), signal.getsignal(signal.SIGTERM)) == before


def test_another_thread_has_no_handlers_to_put_back():
    seen = []

    def work() -> None:
        with preserve_signals():
            seen.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [True]


def test_loggers_and_warnings_are_put_back_and_new_loggers_are_bare():
    old, handler = logging.getLogger("aptlab.test_old"), logging.NullHandler()
    old.addHandler(handler)
    old.setLevel(logging.ERROR)
    filters, show = list(warnings.filters), warnings.showwarning
    try:
        with preserve_logging():
            old.removeHandler(handler)
            old.setLevel(logging.DEBUG)
            old.propagate = False
            logging.getLogger("aptlab.test_new").addHandler(logging.NullHandler())
            logging.captureWarnings(True)
            warnings.simplefilter("error")
        assert (old.level, old.handlers, old.propagate) == (logging.ERROR, [handler], True)
        assert logging.getLogger("aptlab.test_new").handlers == []
        assert (warnings.filters, warnings.showwarning) == (filters, show)
    finally:
        old.removeHandler(handler)
        old.setLevel(logging.NOTSET)
