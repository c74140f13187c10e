"""Errors that a user can cause, and the wording they share."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


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


class TrainingError(AptlabError):
    """Training stopped itself, for example after several non-finite steps in a row."""

    exit_code = 1


class EvalError(AptlabError):
    """A trained run is saved, but something that it measures at its end could not be measured."""

    exit_code = 1


def suggest_option(word: str, options: Iterable[str]) -> str:
    """The tail of an error message: the nearest option, else the list of them.

    >>> suggest("yran", ["yarn", "linear"])
    '; did you mean yarn?'
    """
    options = sorted(set(map(str, options)))
    near = difflib.get_close_matches(word, options, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {near[0]}?"
    if not options:
        return ""
    shown = options[:12] + (["…"] if len(options) > 12 else [])
    return f"; allowed: {', '.join(shown)}"
