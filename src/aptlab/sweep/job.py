"""One training of a sweep: what it is, where it goes, and the process that does it."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

NAME_BYTES = 96  # of a folder's name; file systems allow 255, tools show less


@dataclass(frozen=True)
class SweepJob:
    """The overrides of one training; `key` names its experiment, `varied` is what differs in the sweep."""

    overrides: tuple[str, ...]
    key: str
    varied: tuple[str, ...] = ()
    index: int = 0

    @property
    def name(self) -> str:
        """What differs, for people: `rope=yarn,seed=0`."""
        return ",".join(self.varied) or "job"

    @property
    def folder(self) -> str:
        """The name of the run folder: number, then what differs, safe on every file system."""
        return f"{self.index:03d}-{make_safe_name(self.name)}"


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


def hash_experiment(overrides: Iterable[str], config_hash: str) -> str:
    """12 hex digits that name an experiment: its overrides in any order, and everything they compose to."""
    text = json.dumps([sorted(overrides), config_hash])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


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
