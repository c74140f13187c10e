"""Every measurement of a search, on disk before it is used; a search that was killed goes on from here. No torch."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from aptlab.errors import AptlabError
from aptlab.search.evaluation_cache import SearchJob, Values

FORMAT = 1


class JobRunner(Protocol):
    """Measures jobs, in any order."""

    def run(self, jobs: Sequence[SearchJob]) -> Iterable[tuple[int, Values]]:
        """(number of the job in `jobs`, its values), as they are finished."""
        ...


class SearchJournal:
    """journal.jsonl: a line that says what is searched, then one line per measurement.

    A line cut off by a crash is taken away; its measurement is repeated. Raises AptlabError for a damaged file, and
    for one that belongs to another request, naming what differs.
    """

    def __init__(self, path: Path, request: Mapping[str, Any]) -> None:
        self.path = path
        self.known: dict[SearchJob, Values] = {}
        self.baselines: dict[str, list[tuple[float, float]]] = {}
        plain = json.loads(json.dumps({"format": FORMAT, **request}))
        lines = self._read()
        if lines:
            check_same_search(path, lines[0], plain)
            for record in lines[1:]:
                self._take(record)
        else:
            self._append(plain)

    def get(self, job: SearchJob) -> Values | None:
        """What was measured before, or None."""
        return self.known.get(job)

    def add(self, job: SearchJob, values: Values) -> None:
        """Append a measurement; on disk before this returns."""
        self.known[job] = values
        self._append({"factors": job.factors, "length": job.length, "samples": job.samples, "values": values})

    def add_baseline(self, name: str, losses: Sequence[tuple[float, float]]) -> None:
        """Append the losses of a published rule on every sample."""
        self.baselines[name] = [(float(answer), float(text)) for answer, text in losses]
        self._append({"baseline": name, "losses": losses})

    def _read(self) -> list[dict[str, Any]]:
        try:
            raw = self.path.read_bytes()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise AptlabError(f"cannot read {self.path}: {error.strerror or error}") from error
        whole = raw[: raw.rfind(b"\n") + 1]
        if len(whole) < len(raw):
            os.truncate(self.path, len(whole))
        records = []
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                records.append(json.loads(line))
            except ValueError:
                raise AptlabError(f"{self.path}, line {number} is damaged; move the file away to start anew") from None
        return records

    def _take(self, record: dict[str, Any]) -> None:
        if "baseline" in record:
            self.baselines[record["baseline"]] = [(a, t) for a, t in record["losses"]]
            return
        job = SearchJob(tuple(record["factors"]), record["length"], tuple(record["samples"]))
        self.known[job] = tuple(record["values"])

    def _append(self, record: Mapping[str, Any]) -> None:
        try:
            with open(self.path, "ab") as file:
                file.write(json.dumps(record).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise AptlabError(
                f"cannot write {self.path}: {error.strerror or error}; free some space and repeat the command"
            ) from error


def check_same_search(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """AptlabError naming every value that is not what the journal was begun with."""
    old, new = flatten_tree(before), flatten_tree(now)
    changed = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    if changed:
        listed = "\n".join(f"  {key}: {old.get(key)} -> {new.get(key)}" for key in changed)
        raise AptlabError(
            f"{path.parent} holds another search:\n{listed}\nrepeat its command to go on, or choose another out=…"
        )


def flatten_tree(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= flatten_tree(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


class JournaledRunner:
    """Jobs from the journal where it has them, else from the runner and then into the journal.

    `done` is told the tokens of every job that is there.
    """

    def __init__(self, runner: JobRunner, journal: SearchJournal, *, done: Callable[[int], None] | None = None) -> None:
        self.runner, self.journal, self.done = runner, journal, done or (lambda tokens: None)

    def __call__(self, jobs: Sequence[SearchJob]) -> list[Values]:
        found = {number: values for number, job in enumerate(jobs) if (values := self.journal.get(job)) is not None}
        self.done(sum(jobs[number].tokens for number in found))
        open_numbers = [number for number in range(len(jobs)) if number not in found]
        if open_numbers:
            for place, values in self.runner.run([jobs[number] for number in open_numbers]):
                job = jobs[open_numbers[place]]
                self.journal.add(job, values)
                found[open_numbers[place]] = values
                self.done(job.tokens)
        return [found[number] for number in range(len(jobs))]
