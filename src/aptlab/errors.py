"""Errors that a user can cause, and the wording they share."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # errors of the system that mean: no more room for this file


class AptlabError(ValueError):
    """What the user asked for cannot be done; the message names the way out.

    The command line prints the message without a traceback and exits with `exit_code`. A component says its own
    parameters (`factor=-1 …`), never a path of the configuration; `located` is set once the path is in front.
    """

    exit_code = 2
    located = False


class ConfigError(AptlabError):
    """A value, key or option of the configuration is wrong."""


class DataError(AptlabError):
    """A file or data set cannot be read as text; the message names file and line."""


class CheckpointError(AptlabError):
    """A checkpoint is missing, damaged, or does not fit the configuration."""


class NoSpaceError(CheckpointError):
    """A checkpoint does not fit on the disk; `missing` bytes have to be freed first."""

    def __init__(self, message: str, missing: int = 0) -> None:
        super().__init__(message)
        self.missing = missing


class PoisonedError(CheckpointError):
    """A checkpoint would hold numbers that are not finite."""


class UnsavedError(CheckpointError):
    """A run ended because its weights could not be written; the message names the last step that is saved."""

    exit_code = 1


class TrainingError(AptlabError):
    """Training stopped itself, for example after several non-finite steps in a row."""

    exit_code = 1


class EvalError(AptlabError):
    """A trained run is saved, but something that it measures at its end could not be measured."""

    exit_code = 1


def find_near(word: str, options: Iterable[str]) -> str | None:
    """The option that the word is most likely a slip of, or None."""
    near = difflib.get_close_matches(word, sorted(set(map(str, options))), n=1, cutoff=0.6)
    return near[0] if near else None


def suggest_option(word: str, options: Iterable[str]) -> str:
    """The tail of an error message: the nearest option, else the list of them.

    >>> suggest_option("yran", ["yarn", "linear"])
    '; did you mean yarn?'
    """
    options = sorted(set(map(str, options)))
    near = find_near(word, options)
    if near not in (None, "none"):  # none leaves a part out, which is no slip of a word: the list says what there is
        return f"; did you mean {near}?"
    if not options:
        return ""
    shown = options[:12] + (["…"] if len(options) > 12 else [])
    return f"; allowed: {', '.join(shown)}"
