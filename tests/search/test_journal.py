from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aptlab.errors import AptlabError
from aptlab.search.engine import search_factors
from aptlab.search.evaluation_cache import EvaluationCache, SearchJob
from aptlab.search.journal import JournaledRunner, SearchJournal
from aptlab.search.settings import SearchSettings
from aptlab.search.strategies import STRATEGIES
from tests.search.problem import SAMPLES, TARGET, Hidden, starts

ROOT = Path(__file__).parents[2]
REQUEST = {"target": TARGET, "search": {"population": 16, "seed": 0}}
JOB = SearchJob((1.0, 2.5), 64, (0, 1))


class Slow(Hidden):
    """Takes a moment for every job, and dies by itself after `most`."""

    def __init__(self, pause: float = 0.0, most: int | None = None) -> None:
        super().__init__()
        self.pause, self.most = pause, most

    def run(self, jobs):
        for number, values in super().run(jobs):
            if self.most is not None and len(self.calls) > self.most:
                raise KeyboardInterrupt
            time.sleep(self.pause)
            yield number, values


def look(folder: Path, strategy: str, runner: Hidden):
    journal = SearchJournal(folder / "journal.jsonl", REQUEST)
    cache = EvaluationCache(JournaledRunner(runner, journal), target=TARGET, samples=SAMPLES)
    settings = SearchSettings(population=16, parents=8, iterations=6, mutations=6, crossovers=6)
    return search_factors(starts(), settings=settings, strategy=STRATEGIES[strategy](), cache=cache)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("most", [0, 1, 20, 30])
def test_a_search_that_was_stopped_anywhere_goes_on_to_the_same_result(strategy, most, tmp_path):
    whole = look(tmp_path, strategy, first := Hidden())
    (tmp_path / "again").mkdir()
    with pytest.raises(KeyboardInterrupt):
        look(tmp_path / "again", strategy, Slow(most=most))
    rest = Hidden()
    assert look(tmp_path / "again", strategy, rest) == whole
    assert len(rest.calls) == len(first.calls) - most
    assert look(tmp_path / "again", strategy, Slow(most=0)) == whole


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_after_kill_9_nothing_is_lost_and_nothing_is_measured_again(strategy, tmp_path):
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from pathlib import Path; "
    code += "from tests.search.test_journal import Slow, look; "
    code += f"look(Path({str(tmp_path)!r}), {strategy!r}, Slow(pause=0.02))"
    process = subprocess.Popen([sys.executable, "-c", code])
    journal = tmp_path / "journal.jsonl"
    end = time.monotonic() + 30
    while not journal.exists() or journal.read_bytes().count(b"\n") < 15:
        assert time.monotonic() < end
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = journal.read_bytes().count(b"\n") - 1
    rest = Hidden()
    found = look(tmp_path, strategy, rest)
    (tmp_path / "whole").mkdir()
    assert found == look(tmp_path / "whole", strategy, whole := Hidden())
    assert len(rest.calls) == len(whole.calls) - done


def test_numbers_come_back_exactly(tmp_path):
    path = tmp_path / "journal.jsonl"
    SearchJournal(path, REQUEST).add(JOB, (0.1 + 0.2, float("inf")))
    SearchJournal(path, REQUEST).add_baseline("yarn", [(1 / 3, 2.0)])
    again = SearchJournal(path, REQUEST)
    assert again.get(JOB) == (0.1 + 0.2, float("inf"))
    assert again.baselines == {"yarn": [(1 / 3, 2.0)]}


def test_a_line_that_was_cut_off_is_taken_away(tmp_path):
    path = tmp_path / "journal.jsonl"
    journal = SearchJournal(path, REQUEST)
    journal.add(JOB, (1.0, 2.0))
    whole = path.read_bytes()
    path.write_bytes(whole + whole[-20:-1])
    SearchJournal(path, REQUEST).add(SearchJob((3.0,), 64, (0,)), (4.0,))
    assert path.read_bytes().startswith(whole)
    assert [json.loads(line) for line in path.read_text().splitlines()][2]["factors"] == [3.0]


def test_another_request_is_refused_by_what_differs(tmp_path):
    path = tmp_path / "journal.jsonl"
    SearchJournal(path, REQUEST)
    message = (
        r"holds the results of another request; what differs:\n  search\.population: 16 -> 32\n"
        r"repeat that request to go on, or choose another out=…"
    )
    with pytest.raises(AptlabError, match=message):
        SearchJournal(path, {**REQUEST, "search": {"population": 32, "seed": 0}})


def test_a_damaged_line_is_named(tmp_path):
    path = tmp_path / "journal.jsonl"
    SearchJournal(path, REQUEST)
    path.write_text(path.read_text() + "{]\n")
    with pytest.raises(AptlabError, match=r"journal\.jsonl, line 2 is damaged; delete that line .*, or choose anoth"):
        SearchJournal(path, REQUEST)


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(AptlabError, match=r"cannot (write|read) .*journal\.jsonl"):
        SearchJournal(tmp_path / "file" / "journal.jsonl", REQUEST)


def test_a_journal_of_an_older_version_goes_on(tmp_path):
    path = tmp_path / "journal.jsonl"
    record = {"factors": JOB.factors, "length": JOB.length, "samples": JOB.samples, "values": [1.0, 2.0]}
    baseline = {"baseline": "yarn", "losses": [[3.0, 4.0]]}
    path.write_text("".join(json.dumps(line) + "\n" for line in ({"format": 1, **REQUEST}, record, baseline)))
    journal = SearchJournal(path, REQUEST)
    assert journal.get(JOB) == (1.0, 2.0)
    assert journal.baselines == {"yarn": [(3.0, 4.0)]}


def test_finished_jobs_are_told_with_their_tokens(tmp_path):
    heard: list[int] = []
    journal = SearchJournal(tmp_path / "journal.jsonl", REQUEST)
    recorded = JournaledRunner(Hidden(), journal, done=heard.append)
    jobs = [SearchJob((2.0,) * 16, TARGET, (0, 1)), SearchJob((3.0,) * 16, TARGET, (2,))]
    assert recorded(jobs) == recorded(jobs)
    assert sum(heard) == 2 * 3 * TARGET
