"""Commands that a message tells a person to type, quoted as a shell needs them.

A checkpoint remembers what its run was asked for, except where things go and what is secret. So the command to go on
repeats such words as they were typed, and all words where nothing new was saved yet.
"""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class TypedWords:
    """The words of a `train` command that messages repeat, without `ckpt=`; secrets are hidden in them.

    words    all of them
    lasting  those that no checkpoint of the run keeps: destinations and secrets
    start    the checkpoint that the run goes on from; None for a new run
    """

    words: tuple[str, ...] = ()
    lasting: tuple[str, ...] = ()
    start: Path | None = None


_typed = [TypedWords()]  # of the run that this process trains, behind that of a run around it


@contextlib.contextmanager
def repeat_words(typed: TypedWords) -> Iterator[None]:
    """Inside, commands to go on hold these words where they are needed."""
    _typed.append(typed)
    try:
        yield
    finally:
        _typed.pop()


def write_resume_command(run: str | os.PathLike[str], *words: str) -> str:
    """`aptlab train ckpt=<run> …`, quoted where a name holds a space or a sign of the shell.

    Words of the command line of now that no checkpoint keeps are among them.
    """
    lasting = [word for word in _typed[-1].lasting if word not in words]
    return write_command("train", f"ckpt={os.fspath(run)}", *lasting, *words)


def write_command(*words: str) -> str:
    """`aptlab …`, quoted as a shell needs it."""
    return shlex.join(["aptlab", *words])


def find_run_hint(word: str) -> str | None:
    """What to type for a folder or a checkpoint where an option or a group is asked for; None for any other word."""
    path = Path(word.removeprefix("ckpt=")).expanduser()
    if path.suffix == ".ckpt" and path.is_file():
        return f"{word} is a checkpoint; {write_command('show', f'ckpt={path}')} says what it is"
    if not path.is_dir():
        return None
    shows = write_command("show", f"ckpt={path}")
    return f"{word} is a folder; {shows} shows its newest checkpoint, {write_command('compare', str(path))} its runs"


def list_lasting_words(group: str) -> list[str]:
    """The words of the command line of now that no checkpoint keeps, of one group, as `data.`"""
    return [word for word in _typed[-1].lasting if word.startswith(group)]


def write_command_from(last: Path) -> str:
    """The command that goes on from the newest checkpoint of a run.

    Where that is the one with which this process began, nothing was saved since, and all words are needed again.
    """
    typed = _typed[-1]
    if typed.start is not None and last.absolute() == typed.start.absolute():
        return write_resume_command(last, *typed.words)
    return write_resume_command(last.parent.parent)
