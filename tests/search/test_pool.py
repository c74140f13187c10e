from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aptlab.errors import AptlabError
from aptlab.search.engine import search_factors
from aptlab.search.evaluation_cache import EvaluationCache, SearchJob
from aptlab.search.pool import ProcessPool, SerialRunner
from aptlab.search.settings import SearchSettings
from aptlab.search.strategies import HalvingStrategy
from tests.search.problem import SAMPLES, TARGET, Hidden, starts

ROOT = Path(__file__).parents[2]


class Work:
    """What a worker does, by its number; picklable."""

    def __init__(self, kind: str = "measure") -> None:
        self.kind = kind

    def __call__(self, number: int):
        if self.kind == "refuse":
            raise AptlabError("there is no such device")
        return getattr(self, self.kind)

    def measure(self, job: SearchJob):
        time.sleep(0.002 * (hash(job.factors) % 3))
        return Hidden()([job])[0]

    def die(self, job: SearchJob):
        os._exit(9)

    def wait(self, job: SearchJob):
        time.sleep(60)


def jobs(count: int) -> list[SearchJob]:
    return [SearchJob((1.0 + i / 10,) * 16, TARGET, (0, 1)) for i in range(count)]


def evaluate(runner):
    def run(job):
        found = dict(runner.run(job))
        return [found[number] for number in range(len(job))]

    return run


def test_every_job_is_measured_once_and_told_by_its_number():
    with ProcessPool(Work(), 2) as pool:
        found = list(pool.run(jobs(11)))
        again = list(pool.run(jobs(3)))
    assert dict(found) == dict(SerialRunner(Work().measure).run(jobs(11)))
    assert len(found) == 11
    assert len(again) == 3


def test_a_search_finds_the_same_with_one_process_and_with_three():
    def found(runner):
        cache = EvaluationCache(evaluate(runner), target=TARGET, samples=SAMPLES)
        settings = SearchSettings(population=12, parents=6, iterations=3, mutations=4, crossovers=4)
        return search_factors(starts(), settings=settings, strategy=HalvingStrategy(), cache=cache)

    with ProcessPool(Work(), 3) as pool:
        assert found(pool) == found(SerialRunner(Work().measure))


def test_an_error_of_a_worker_is_raised_here():
    with ProcessPool(Work("refuse"), 2) as pool, pytest.raises(AptlabError, match="there is no such device"):
        list(pool.run(jobs(3)))


def test_a_worker_that_dies_is_reported():
    with (
        ProcessPool(Work("die"), 1) as pool,
        pytest.raises(AptlabError, match=r"a search worker ended with exit code 9 \(out of memory\?\); repeat the com"),
    ):
        list(pool.run(jobs(2)))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_workers_end_when_the_search_is_stopped():
    pool = ProcessPool(Work("wait"), 2)
    pids = [process.pid for process, _ in pool.members]

    def stopped() -> None:
        with pool:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_workers_end_when_their_parent_is_killed():
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import time; "
    code += "from aptlab.search.pool import ProcessPool; from tests.search.test_pool import Work\n"
    code += "if __name__ == '__main__':\n"
    code += "    pool = ProcessPool(Work(), 2); print(*[p.pid for p, _ in pool.members], flush=True); time.sleep(60)"
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pids = parent.stdout.readline().split()
    parent.kill()
    parent.wait()
    end = time.monotonic() + 20
    while any(os.path.exists(f"/proc/{pid}") and alive(int(pid)) for pid in pids):
        assert time.monotonic() < end
        time.sleep(0.05)
    assert len(pids) == 2


def alive(pid: int) -> bool:
    """A process that nobody waited for is not alive."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
