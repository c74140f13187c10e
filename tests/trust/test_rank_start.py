"""What ranks share outside of training: processes, a place to meet, reasons, and a launcher that may go away."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time

import pytest

from aptlab.device.meeting import Meeting, MeetingStore
from aptlab.errors import ConfigError
from aptlab.runs import launched, notice
from aptlab.runs.notice import Message, flatten_reason, leave_soon, write_notice
from aptlab.runs.process import COLLECTIVES, describe_end, find_collective, is_gone, kill_process, read_birth
from aptlab.runs.watch import FAILED
from aptlab.training import ranks

RANK = """
import sys, time
from aptlab.runs import launched, notice
launched.AFTER = 0.2
with launched.watch_launcher():
    print("ready", flush=True)
    time.sleep(60)
"""
LAUNCHER = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(60)
"""


def test_a_rank_whose_launcher_is_killed_leaves(monkeypatch):
    for name, value in {"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "2", "RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    launcher = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, RANK], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert launcher.stdout is not None
    pid = int(launcher.stdout.readline())
    born = read_birth(pid)
    launcher.kill()
    deadline = time.monotonic() + 20
    while not is_gone(pid, born) and time.monotonic() < deadline:
        time.sleep(0.1)
    gone = is_gone(pid, born)
    kill_process(pid, born)
    assert gone
    text = f"rank 1 leaves: its launcher (process {launcher.pid}) has gone away\n"
    assert launcher.communicate()[1] == text


def test_what_another_rank_says_is_one_line_without_control_characters_or_secrets(monkeypatch):
    monkeypatch.setenv("SERVICE_API_KEY", "abcdef0123456789")
    assert flatten_reason("a\x1b[2J\nb abcdef0123456789") == "a [2J b ***"
    assert len(flatten_reason("x" * 5000)) < 700


def run_in(name, body):
    """A function's frame inside a module of that name."""
    space = {"__name__": name, "body": body}
    exec("def call():\n    return body()", space)
    return space["call"]


def test_the_collective_is_named_with_its_caller():
    def look():
        return find_collective(sys._getframe(), idle=True)

    inner = run_in(COLLECTIVES, look)
    inner.__code__ = inner.__code__.replace(co_name="all_reduce")
    line = look.__code__.co_firstlineno
    assert inner().startswith("all_reduce (test_rank_start.py:")
    assert int(inner().partition(":")[2].rstrip(")")) > line
    assert look() == ""


def test_a_stopped_process_is_killed_and_another_of_its_number_is_not():
    child = subprocess.Popen(["sleep", "60"])
    born = read_birth(child.pid)
    child.send_signal(signal.SIGSTOP)
    assert not is_gone(child.pid, born)
    assert not kill_process(child.pid, "1")
    assert not kill_process(child.pid, "")
    assert child.poll() is None
    assert kill_process(child.pid, born)
    assert child.wait(10) == -signal.SIGKILL
    assert is_gone(child.pid, born)
    assert describe_end(-9) == "was killed by SIGKILL"
    assert describe_end(3) == "ended with code 3"


def test_a_port_in_use_is_told_before_any_rank_waits():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"rank 0 cannot open port {port} for the other ranks .*MASTER_PORT"):
            MeetingStore(Meeting(host="127.0.0.1", port=port, rank=0)).open()


def test_a_rank_that_fails_at_its_start_leaves_its_reason_where_the_others_meet(monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name, value in {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": 2, "RANK": 1}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(ranks, "_runs", [])
    zero = MeetingStore(Meeting(host="127.0.0.1", port=port, rank=0))
    zero.open()
    with pytest.raises(ConfigError), ranks.report_early_failure():
        raise ConfigError("lr=-1 must be positive")
    message = Message.decode(zero.read([FAILED])[FAILED])
    assert message == Message(rank=1, text="lr=-1 must be positive", code=2)


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({}, False),
        ({"WORLD_SIZE": "1", "RANK": "0"}, False),
        ({"WORLD_SIZE": "2", "RANK": "0"}, True),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "2", "SLURM_JOB_NAME": "job"}, True),
    ],
)
def test_a_launched_rank_is_known_by_its_environment(monkeypatch, env, expected):
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "TORCHELASTIC_RUN_ID", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert launched.is_launched_rank() == expected
    assert not launched.has_launcher()  # a shell, which may leave in peace


def test_a_notice_follows_no_link(tmp_path, capfd):
    (tmp_path / "else.txt").write_text("")
    (tmp_path / "log.txt").symlink_to(tmp_path / "else.txt")
    write_notice("a line", tmp_path)
    assert capfd.readouterr().err == "a line\n"
    assert (tmp_path / "else.txt").read_text() == ""


def test_the_ranks_of_slurm_meet_where_lightning_lets_them(monkeypatch):
    for name in ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    job = {
        "JOB_ID": "1234",
        "JOB_NAME": "job",
        "PROCID": "1",
        "NTASKS": "4",
        "NTASKS_PER_NODE": "2",
        "NODELIST": "alpha[1-2]",
    }
    for name, value in job.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setattr(ranks, "_runs", [False])
    assert ranks.find_meeting() == (Meeting(host="alpha1", port=16234, rank=1, run=0), 4)


def test_a_process_that_cannot_end_by_itself_is_ended(monkeypatch):
    codes = []
    monkeypatch.setattr(notice.atexit, "register", lambda end: end())
    leave_soon(8, 99.0, codes.append)
    assert codes == [8]  # at the end of Python's work
    codes.clear()
    monkeypatch.setattr(notice.atexit, "register", lambda end: None)
    leave_soon(7, 0.05, codes.append)
    deadline = time.monotonic() + 20
    while not codes and time.monotonic() < deadline:
        time.sleep(0.05)
    assert codes == [7]
