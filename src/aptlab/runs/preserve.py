"""A run inside somebody else's process: what it changes there is put back afterwards. No torch."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def preserve_environment() -> Iterator[None]:
    """Put `os.environ` and `sys.argv` back as they were, however the block ends."""
    environment, argv = dict(os.environ), list(sys.argv)
    try:
        yield
    finally:
        sys.argv[:] = argv
        for name in set(os.environ) - set(environment):
            del os.environ[name]
        os.environ.update(environment)


@contextlib.contextmanager
def preserve_signals() -> Iterator[None]:
    """Put the signal handlers back. Only the main thread may set any, so elsewhere there is nothing to do."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            # None: the handler was not installed from Python and cannot be put back from here either.
            if handler is not None and signal.getsignal(number) != handler:
                signal.signal(number, handler)


@contextlib.contextmanager
def preserve_logging() -> Iterator[None]:
    """Put levels, handlers and filters of every logger back, and the filters of `warnings`.

    A logger that first appears inside the block loses what was set on it there, so import what sets up its own
    loggers (Lightning does) before entering.
    """
    before = {logger: copy_logger_state(logger) for logger in list_loggers()}
    filters, show = list(warnings.filters), warnings.showwarning
    try:
        yield
    finally:
        logging.captureWarnings(False)  # forgets that it is on; `showwarning` follows
        warnings.filters[:] = filters  # type: ignore[index]
        warnings.showwarning = show
        for logger in list_loggers():
            state = before.get(logger, {"level": logging.NOTSET, "handlers": [], "filters": [], "propagate": True})
            restore_logger_state(logger, state)


def list_loggers() -> list[logging.Logger]:
    """The root logger and every named one that exists."""
    named = [item for item in logging.Logger.manager.loggerDict.values() if isinstance(item, logging.Logger)]
    return [logging.getLogger(), *named]


def copy_logger_state(logger: logging.Logger) -> dict[str, Any]:
    return {
        "level": logger.level,
        "handlers": list(logger.handlers),
        "filters": list(logger.filters),
        "propagate": logger.propagate,
    }


def restore_logger_state(logger: logging.Logger, state: dict[str, Any]) -> None:
    if logger.level != state["level"]:  # to set one asks every other logger to forget what it knows
        logger.setLevel(state["level"])
    logger.handlers[:], logger.filters[:], logger.propagate = state["handlers"], state["filters"], state["propagate"]
