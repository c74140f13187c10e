"""A forked command is one: exit code, output, words, folder, and a server that has nothing to pass on."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
from benchmarks.fault_campaigns.engine import count_server_threads, get_server

from tests.commands.forked import run_forked, start_forked
from tests.commands.small_run import newest, words

pytestmark = pytest.mark.slow


def test_it_prints_fails_and_ends_as_a_process_does(tmp_path):
    made = run_forked("train", *words("evals=none"))
    assert (made.returncode, made.stderr.count("Traceback")) == (0, 0)
    assert "trained to step 2" in made.stdout
    assert newest().result.steps == 2
    assert "APTLAB_RUN_DIR" not in os.environ
    refused = run_forked("train", *words("size.heads=3"))
    assert refused.returncode == 2
    assert "size.dim=32 is not divisible by heads=3" in refused.stderr
    assert run_forked("train", *words("evals=none"), fault="train.batch:2").returncode == -signal.SIGKILL
    running = start_forked("train", *words("trainer.max_steps=100000", "evals=none", "run_dir=long"))
    while not Path("long/log.txt").exists():
        assert running.poll() is None
    assert os.getpgid(running.pid) == running.pid
    os.kill(running.pid, signal.SIGTERM)
    assert running.wait().returncode in (143, -signal.SIGTERM)


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
def test_the_server_has_one_thread():
    context = get_server()
    answer = context.SimpleQueue()
    child = context.Process(target=count_server_threads, args=(answer,))
    child.start()
    assert answer.get() == 1
    child.join()
