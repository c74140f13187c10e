"""Sweeps that are cut off: by kill -9, by Ctrl-C, by a second sweep on the same folder."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aptlab.errors import AptlabError
from tests.commands.sweep_driver import sweep
from tests.commands.test_sweep_parts import alive

DRIVER = Path(__file__).with_name("sweep_driver.py")
ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="processes are stopped by POSIX signals")


def start(*args: str, **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(DRIVER), *args],
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT / "src"), str(ROOT))), **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_interrupts,
    )


def heed_interrupts() -> None:
    """What a shell runs in the background ignores Ctrl-C, these tests and so their children too."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_for(condition, seconds: float = 30.0):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)
    return found


def started(number: int) -> list[Path]:
    """The attempts of at least `number` jobs, once they are there."""
    found = sorted(Path("outputs").glob("*/sweeps/*/jobs/*/attempts.txt"))
    return found if len(found) >= number else []


def attempts() -> dict[str, int]:
    return {path.parent.name: len(path.read_text().splitlines()) for path in started(1)}


def trainers(parent: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


@pytest.fixture(autouse=True)
def _no_figure(monkeypatch):
    monkeypatch.setattr("aptlab.report.write.draw_comparison", lambda comparison, path: path)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux ends children with their parent")
def test_after_kill_9_no_trainer_lives_on_and_only_what_is_missing_is_run(capsys):
    parent = start("seed=0,1,2", "sweep.name=x", FAKE_SLEEP="0.6", FAKE_CHECKPOINT="1")
    saved = Path("outputs/train/sweeps/x/jobs/001-seed=1/checkpoints")
    wait_for(lambda: started(2) and any(saved.glob("*.json")))  # the manifest comes last
    children = trainers(parent.pid)
    parent.kill()
    parent.communicate()
    assert len(children) == 1
    wait_for(lambda: not any(map(alive, children)), 10)
    assert sweep("seed=0,1,2", "sweep.name=x") == 0
    assert attempts() == {"000-seed=0": 1, "001-seed=1": 2, "002-seed=2": 1}
    out = capsys.readouterr().out
    assert "3, 1 finished before" in out
    assert "[2/3] resume  seed=1" in out


@pytest.mark.slow
def test_jobs_of_a_cluster_outlive_their_parent_until_the_next_one_asks_them_to_end(capsys):
    args = ("seed=0", "sweep.name=x", "launcher=submitit", "launcher.cluster=local", "launcher.grace=20")
    parent = start(*args, FAKE_SLEEP="30")
    wait_for(lambda: started(1))
    time.sleep(0.3)  # until the trainer listens
    parent.kill()
    parent.wait()  # its pipes live on in the job
    assert sweep(*args) == 0
    assert "waiting  for 1 job(s) of an earlier, killed sweep to save and end" in capsys.readouterr().out
    assert attempts() == {"000-seed=0": 2}
    assert not Path("outputs/train/sweeps/x/.stop").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_sweep_lets_its_jobs_save_and_says_how_to_go_on(number, code):
    parent = start("seed=0,1", "sweep.name=x", FAKE_SLEEP="30")
    wait_for(lambda: started(1))
    time.sleep(0.3)  # until the trainer listens
    parent.send_signal(number)
    out, _ = parent.communicate(timeout=20)
    assert parent.returncode == code
    assert "interrupted: 0 of 2 jobs are finished; continue with: aptlab train -m seed=0,1 sweep.name=x" in out
    lines = (Path("outputs/train/sweeps/x/journal.jsonl")).read_text().splitlines()
    last = json.loads(lines[-1])
    assert (last["event"], last["job"], last["code"]) == ("interrupted", 0, code)
    assert attempts() == {"000-seed=0": 1}
    assert not Path("outputs/train/sweeps/x/.stop").exists()


def test_two_sweeps_on_one_folder_are_refused():
    parent = start("seed=0", "sweep.name=x", FAKE_SLEEP="30")
    wait_for(lambda: started(1))
    try:
        message = f"process {parent.pid} is working on this sweep; wait for it, stop it .kill {parent.pid}., or add"
        with pytest.raises(AptlabError, match=message):
            sweep("seed=0", "sweep.name=x")
        assert attempts() == {"000-seed=0": 1}
    finally:
        parent.terminate()
        parent.communicate(timeout=20)


def test_a_torn_journal_is_read_as_far_as_it_goes(capsys):
    sweep("seed=0,1", "sweep.name=x")
    journal = Path("outputs/train/sweeps/x/journal.jsonl")
    journal.write_text(journal.read_text()[:-30])
    assert sweep("seed=0,1", "sweep.name=x") == 0
    assert attempts() == {"000-seed=0": 1, "001-seed=1": 1}


def test_a_line_that_an_older_version_wrote_behind_a_torn_one_is_told_and_left_out(caplog):
    sweep("seed=0,1", "sweep.name=x")
    journal = Path("outputs/train/sweeps/x/journal.jsonl")
    first, *rest = journal.read_text().splitlines(keepends=True)
    journal.write_text(first[:-30] + "".join(rest))
    with caplog.at_level(logging.WARNING, "aptlab"):
        assert sweep("seed=0,1", "sweep.name=x") == 0
    assert "journal.jsonl, line 1 is damaged and left out" in caplog.text
    assert attempts() == {"000-seed=0": 1, "001-seed=1": 1}


def test_a_damaged_list_of_jobs_is_refused():
    sweep("seed=0", "sweep.name=x")
    Path("outputs/train/sweeps/x/sweep.yaml").write_text("jobs: [")
    with pytest.raises(AptlabError, match=r"sweep.yaml cannot be read: .*; use sweep.fresh=true or another sweep.name"):
        sweep("seed=0", "sweep.name=x")
    assert sweep("seed=0", "sweep.name=x", "sweep.fresh=true") == 0
