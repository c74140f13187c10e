"""One training of a sweep: what it is, where it goes, and the process that does it."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

ROOT = "paths.root"
NAME_BYTES = 96  # of a folder's name; file systems allow 255, tools show less


@dataclass(frozen=True)
class SweepJob:
    """The overrides of one training; `key` names its experiment, `varied` is what differs in the sweep.

    `composed` is the hash of what the overrides compose to, where that is known.
    """

    overrides: tuple[str, ...]
    key: str
    varied: tuple[str, ...] = ()
    index: int = 0
    composed: str = ""

    @property
    def name(self) -> str:
        """What differs, for people: `rope=yarn,seed=0`."""
        return ",".join(self.varied) or "job"

    @property
    def folder(self) -> str:
        """The name of the run folder: number, then what differs, safe on every file system."""
        return f"{self.index:03d}-{make_safe_name(self.name)}"

    def make_earlier_key(self, root: str) -> str:
        """The key that earlier versions gave to this job where `root` was the override of `paths.root`."""
        return hash_words([*(word for word in self.overrides if not names_root(word)), root], self.composed)


@dataclass(frozen=True)
class JobCommand:
    """A command to run in a process of its own; plain data, so that it can be sent to another machine.

    All output goes to `log`. While the file `stop` exists, the process is asked to end with the signal written in it.
    """

    index: int
    name: str
    command: tuple[str, ...]
    log: str
    stop: str
    cwd: str
    env: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class JobEvent:
    """`started`, or `ended` with exit code (negative: the signal that killed it) and wall seconds."""

    kind: str
    task: JobCommand
    code: int | None = None
    seconds: float = 0.0


def hash_experiment(overrides: Iterable[str], composed: str) -> str:
    """12 hex digits that name an experiment: its overrides in any order, and the hash of everything they compose to.

    Where the runs are kept, `paths.root`, makes no other experiment: a sweep is found again after it was moved.
    """
    return hash_words([word for word in overrides if not names_root(word)], composed)


def hash_words(words: Iterable[str], composed: str) -> str:
    """12 hex digits of overrides in any order and a hash."""
    return hashlib.sha256(json.dumps([sorted(words), composed]).encode()).hexdigest()[:12]


def names_root(override: str) -> bool:
    """Whether an override says where runs are kept."""
    return override.lstrip("+~").partition("=")[0] == ROOT


def make_sweep_name(keys: Iterable[str], extra: Sequence[str] = ()) -> str:
    """8 hex digits that name a sweep: the same jobs in any order give the same name."""
    return hashlib.sha256(json.dumps([sorted(keys), list(extra)]).encode()).hexdigest()[:8]


def find_varied_overrides(jobs: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
    """Of each job, the overrides that not all jobs share."""
    if len(jobs) < 2:
        return [tuple(job) for job in jobs]
    shared = set.intersection(*(set(job) for job in jobs))
    return [tuple(override for override in job if override not in shared) for job in jobs]


def make_safe_name(name: str, limit: int = NAME_BYTES) -> str:
    """A folder name out of any text: letters of any script, digits and `=,.+-_`; cut to `limit` bytes of UTF-8.

    >>> safe("data.path='/a b',seed=0")
    'data.path=a_b,seed=0'
    """
    text = unicodedata.normalize("NFC", name)
    text = "".join(char if char.isalnum() or char in "=,.+-_" else " " for char in text)
    text = re.sub(r"(?<=[=,])\s+|\s+(?=[=,])", "", text.strip())
    text = re.sub(r"\s+", "_", text)
    text = text.encode()[:limit].decode(errors="ignore")
    return text.strip("._- ") or "job"
