"""Tries, made side by side and counted."""

from __future__ import annotations

import random
import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from benchmarks.fault_campaigns.place import Place
from benchmarks.fault_campaigns.row import Row

JOBS = 2  # tries at a time
Try = Callable[[], str]  # what went wrong, empty where the promise held


def count_tries(fault: str, injected: str, tries: Sequence[Try], jobs: int = JOBS) -> Row:
    """Make all tries, whatever each of them does, and count those in which the promise held."""
    with ThreadPoolExecutor(jobs) as pool:
        wrong = [problem for problem in pool.map(_attempt, tries) if problem]
    row = Row(fault, injected, len(tries), len(tries) - len(wrong), "; ".join(dict.fromkeys(wrong[:3])))
    print(row.fault, row.injected, f"{row.held}/{row.tried}", row.note, sep="  ", flush=True)
    return row


def _attempt(attempt: Try) -> str:
    try:
        return attempt()
    except Exception:
        return "the try itself broke: " + traceback.format_exc().strip().splitlines()[-1]


@contextmanager
def open_place() -> Iterator[Place]:
    """A place that goes away again."""
    root = Path(tempfile.mkdtemp(prefix="aptlab-faults-"))
    try:
        yield Place(root)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def spread_over(total: int, parts: int) -> list[int]:
    """`total` tries shared among `parts` kinds, at least one each."""
    return [max(1, total // parts + (number < total % parts)) for number in range(parts)]


def make_random(seed: int, name: str) -> random.Random:
    """Random numbers of one campaign, the same in every run of it."""
    return random.Random(f"{seed} {name}")
