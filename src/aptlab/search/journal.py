"""Every measurement of a search, on disk before it is used; a search that was killed goes on from here. No torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from aptlab.runs.journal import Journal
from aptlab.runs.record import find_shape_problem
from aptlab.search.evaluation_cache import SearchJob, Values

FORMAT = 1


class JobRunner(Protocol):
    """Measures jobs, in any order."""

    def run(self, jobs: Sequence[SearchJob]) -> Iterable[tuple[int, Values]]:
        """(number of the job in `jobs`, its values), as they are finished."""
        ...


class SearchJournal:
    """The measurements of a search in a journal: candidates by their job, published rules by their name.

    Raises AptlabError for a damaged file, and for one that belongs to another request, naming what differs.
    """

    def __init__(self, path: Path, request: Mapping[str, Any]) -> None:
        self.known: dict[SearchJob, Values] = {}
        self.baselines: dict[str, list[tuple[float, float]]] = {}
        identity = {"format": FORMAT, **request}
        self._journal = Journal(path, identity, upgrade=upgrade_first_line, inspect=find_record_problem)
        for record in self._journal.records:
            self._take(record)

    def get(self, job: SearchJob) -> Values | None:
        """What was measured before, or None."""
        return self.known.get(job)

    def add(self, job: SearchJob, values: Values) -> None:
        """Append a measurement; on disk before this returns."""
        self.known[job] = values
        self._journal.append({"factors": job.factors, "length": job.length, "samples": job.samples, "values": values})

    def add_baseline(self, name: str, losses: Sequence[tuple[float, float]]) -> None:
        """Append the losses of a published rule on every sample."""
        self.baselines[name] = [(float(answer), float(text)) for answer, text in losses]
        self._journal.append({"baseline": name, "losses": losses})

    def _take(self, record: dict[str, Any]) -> None:
        if "baseline" in record:
            self.baselines[record["baseline"]] = [(a, t) for a, t in record["losses"]]
            return
        job = SearchJob(tuple(record["factors"]), record["length"], tuple(record["samples"]))
        self.known[job] = tuple(record["values"])


def find_record_problem(record: Mapping[str, Any]) -> str | None:
    """What is wrong with the shape of a measurement, None where it can be used."""
    if "baseline" in record:
        problem = find_shape_problem(record, {"baseline": str, "losses": list})
        if problem is None and not all(is_pair(pair) for pair in record["losses"]):
            return "losses should be pairs of numbers"
        return problem
    problem = find_shape_problem(record, {"factors": list, "length": int, "samples": list, "values": list})
    if problem is None and not all(map(is_number, [*record["factors"], *record["samples"], *record["values"]])):
        return "factors, samples and values should be numbers"
    if problem is None and len(record["samples"]) != len(record["values"]):
        return "there are not as many values as samples"
    return problem


def is_pair(value: Any) -> bool:
    """Whether a plain value is a list of two numbers."""
    return isinstance(value, list) and len(value) == 2 and all(map(is_number, value))


def is_number(value: Any) -> bool:
    """Whether a plain value is a number, and no truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def upgrade_first_line(line: dict[str, Any]) -> dict[str, Any]:
    """The first line of a search's journal; older ones hold the request without a word in front."""
    return line if "request" in line else {"request": line}


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
