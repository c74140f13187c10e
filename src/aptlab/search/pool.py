"""Jobs in this process, or in several that each hold the network."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any

from aptlab.errors import AptlabError
from aptlab.search.evaluation_cache import SearchJob, Values

Measure = Callable[[SearchJob], Values]
Make = Callable[[int], Measure]  # number of the worker -> what measures there; must be picklable for `Pool`
END_SECONDS = 5


class SerialRunner:
    """One job after the other, here."""

    def __init__(self, measure: Measure) -> None:
        self.measure = measure

    def run(self, jobs: Sequence[SearchJob]) -> Iterator[tuple[int, Values]]:
        """See `Runner`."""
        yield from ((number, self.measure(job)) for number, job in enumerate(jobs))


class ProcessPool:
    """`workers` processes, each with what `make(number)` gives; used as a context manager.

    A job's values do not depend on who measures it, nor on what else is measured. A worker whose parent is gone ends
    itself. AptlabErrors of a worker are raised here.
    """

    def __init__(self, make: Make, workers: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.members: list[tuple[Any, Connection]] = []
        for number in range(workers):
            ours, theirs = context.Pipe()
            process = context.Process(target=serve_jobs, args=(theirs, make, number), daemon=True)
            process.start()
            theirs.close()
            self.members.append((process, ours))

    def __enter__(self) -> ProcessPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for _, connection in self.members:
            connection.close()
        for process, _ in self.members:
            process.join(END_SECONDS if kind is None else 0)
            if process.is_alive():
                process.terminate()
                process.join()

    def run(self, jobs: Sequence[SearchJob]) -> Iterator[tuple[int, Values]]:
        """See `Runner`."""
        left = iter(enumerate(jobs))
        busy: dict[Connection, int] = {}
        for _, connection in self.members:
            self._give(connection, left, busy)
        while busy:
            for ready in wait(list(busy)):
                assert isinstance(ready, Connection)
                number = busy.pop(ready)
                values = self._answer(ready)
                self._give(ready, left, busy)
                yield number, values

    def _give(self, connection: Connection, left: Iterator[tuple[int, SearchJob]], busy: dict[Connection, int]) -> None:
        for number, job in left:
            with contextlib.suppress(BrokenPipeError):  # it died; its last words are read below
                connection.send(job)
            busy[connection] = number
            return

    def _answer(self, connection: Connection) -> Values:
        try:
            answer = connection.recv()
        except (EOFError, ConnectionResetError):
            process = next(process for process, member_connection in self.members if member_connection is connection)
            process.join(END_SECONDS)
            raise AptlabError(
                f"a search worker ended with exit code {process.exitcode} (out of memory?); repeat the command to go "
                "on, with fewer workers=…"
            ) from None
        if isinstance(answer, AptlabError):
            raise answer
        return answer


def serve_jobs(connection: Connection, make: Make, number: int) -> None:
    """The life of a worker: jobs in, values out, until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which closes the connection
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        try:
            measure = make(number)
            while True:
                connection.send(measure(connection.recv()))
        except AptlabError as error:
            connection.send(error)
