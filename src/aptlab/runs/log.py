"""log.txt and the console: everything goes to the file, short lines to the screen, secrets to neither."""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
from collections import deque
from pathlib import Path
from typing import Any

from aptlab.errors import AptlabError
from aptlab.redact import redact_text
from aptlab.runs.files import open_file
from aptlab.shown import print_shown, show_message

_SOURCES = ("aptlab", "py.warnings", "lightning", "lightning.pytorch", "lightning.fabric")
_RANK_ZERO = (
    "lightning.pytorch.utilities.rank_zero",
    "lightning.fabric.utilities.rank_zero",
    "lightning_utilities.core.rank_zero",
)
_BANNER = ("GPU available:", "TPU available:", "HPU available:", "IPU available:", "`Trainer.fit` stopped:")
_ADVERTISEMENT = ("Tip:", "litlogger", "litmodels")


class RunLog:
    """Handlers of one run, attached until `close`; a second one in the process replaces the first."""

    _current: RunLog | None = None

    def __init__(self, handlers: dict[logging.Handler, tuple[str, ...]], early: _Early) -> None:
        self._handlers, self.early = handlers, early
        for handler, sources in handlers.items():
            for name in sources:
                logging.getLogger(name).addHandler(handler)

    @classmethod
    def start(cls, folder: str | Path | None, *, console: bool = True, verbose: bool = False) -> RunLog:
        """Log to `folder`/log.txt (no file if None) and to stderr; quietens Lightning's banner.

        The file is appended to, so a resumed run keeps its history, and begins with what was logged while there was
        no folder yet: after an earlier `start(None)`. Raises AptlabError if the file
        cannot be opened.
        """
        earlier = list(cls._current.early.records) if cls._current is not None else []
        if cls._current is not None:
            cls._current.close()
        handlers: dict[logging.Handler, tuple[str, ...]] = {}
        early = _Early()
        if folder is not None:
            file = _file(Path(folder) / "log.txt")
            handlers[file] = _SOURCES
            for record in earlier:
                file.handle(record)
        else:
            handlers[early] = _SOURCES
        if console:
            handlers[_console(verbose)] = ("aptlab", "py.warnings")
        quiet_lightning()
        logging.captureWarnings(True)
        logging.getLogger("aptlab").setLevel(logging.DEBUG)
        cls._current = cls(handlers, early)
        return cls._current

    def close(self) -> None:
        """Detach and close the handlers; harmless when repeated."""
        for handler, sources in self._handlers.items():
            for name in sources:
                logging.getLogger(name).removeHandler(handler)
            handler.close()
        self._handlers = {}
        if RunLog._current is self:
            RunLog._current = None
            logging.captureWarnings(False)

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *problem: object) -> None:
        self.close()


class _Early(logging.Handler):
    """Keeps the latest records until there is a file for them."""

    def __init__(self) -> None:
        super().__init__()
        self.records: deque[logging.LogRecord] = deque(maxlen=1000)
        self.addFilter(_Once())

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


class _Redacting(logging.Formatter):
    """Hides secrets in the finished line, traceback included, and spells out what a terminal would obey."""

    def format(self, record: logging.LogRecord) -> str:
        return show_message(redact_text(super().format(record)))


class _Short(logging.Formatter):
    """`message` or `warning: message`, one line, no traceback."""

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage().strip()
        if record.name == "py.warnings":
            message = message.splitlines()[0] if message else message
        prefix = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        return show_message(redact_text(prefix + message))


class _RunFile(logging.FileHandler):
    """log.txt, opened as every file of a run folder is.

    A disk that takes no more of it costs one line on the console, and lines of the log until there is room.
    The line goes to the console alone: a traceback of the logging, or a record that ends up here again, helps nobody.
    """

    _told = False

    def _open(self) -> Any:
        return open_file(self.baseFilename, self.mode, encoding=self.encoding)

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self._told:
            self._told = True
            with contextlib.suppress(OSError):
                print_shown(
                    f"warning: cannot write {self.baseFilename}: {error.strerror}; lines are missing", file=sys.stderr
                )

    def close(self) -> None:
        """What a full disk did not take until now is lost, and that was told."""
        with contextlib.suppress(OSError):
            super().close()


class _Once(logging.Filter):
    """Lets a record through once, though it passes by at a logger and again at its parent."""

    last: logging.LogRecord | None = None

    def filter(self, record: logging.LogRecord) -> bool:
        new = record is not self.last
        self.last = record
        return new


class _NoAdvertisement(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        return not (message.startswith(_BANNER) or any(word in message for word in _ADVERTISEMENT))


_filter = _NoAdvertisement()


def quiet_lightning() -> None:
    """Drop Lightning's advertisements, its list of devices and a warning about its own code."""
    warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\).*")
    for name in _RANK_ZERO:
        logging.getLogger(name).addFilter(_filter)


def _file(path: Path) -> logging.Handler:
    try:
        handler = _RunFile(path, encoding="utf-8")
    except OSError as error:
        raise AptlabError(f"cannot write {path}: {error.strerror}; choose another run_dir") from error
    handler.setLevel(logging.DEBUG)
    handler.addFilter(_Once())
    handler.setFormatter(_Redacting("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    return handler


def _console(verbose: bool) -> logging.Handler:
    handler = logging.StreamHandler(sys.stderr)
    handler.setLevel(logging.DEBUG if verbose else logging.INFO)
    handler.setFormatter(_Short())
    return handler
