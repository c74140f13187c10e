"""A rank that stops answering is named and ends the run in time; one that works, however long, does not."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from benchmarks.fault_campaigns import ranks as campaign

from aptlab.callbacks import watchdog
from aptlab.callbacks.watchdog import Watchdog
from aptlab.errors import ConfigError, RankLost
from aptlab.runs.heartbeat import AwakeClock, Beat, RankRule
from aptlab.runs.notice import BRIEF, Message
from aptlab.runs.process import read_birth
from aptlab.runs.watch import FAILED, LAST, TICK, VERDICT, RankWatch, WatchPlan
from aptlab.training.ranks import describe_error, raise_cause, watch_ranks

SILENT, END = 30.0, 60.0
CAMPAIGN = Path(campaign.__file__)
WAIT = "all_reduce (stop.py:119)"


def beat(count, **values):
    return Beat(count=count, **({"patient": False, "place": "training batch 5 at step 5"} | values))


class Life:
    """Two ranks on a clock of its own: what each says in every second, and what rank 0 finds."""

    def __init__(self, ranks=(0, 1)):
        self.rule = RankRule(silent=SILENT, end=END, ranks=ranks)
        self.now, self.found = 0.0, []

    def pass_seconds(self, seconds, says):
        """`says` gives the values of a rank's beat at a second, or None for no beat."""
        for _ in range(seconds):
            self.now += 1
            for rank in self.rule.ranks:
                values = says(rank, int(self.now))
                if values is not None:
                    self.rule.hear(rank, beat(int(self.now), **values), self.now)
            problem = self.rule.find_problem(self.now)
            if problem:
                self.found.append((self.now, problem))
        return self


def at_work(rank, second):
    return {"marks": second, "pid": 40 + rank, "host": "node"}


def test_a_rank_that_sends_nothing_is_told_and_ends_the_run_in_time():
    life = Life().pass_seconds(10, at_work)
    life.pass_seconds(60, lambda rank, second: {"marks": 10, "wait": WAIT} if rank == 0 else None)
    told, ended = life.found[0], next(one for one in life.found if one[1].ends)
    assert (told[0], ended[0]) == (40, 70)
    assert told[1].ranks == (1,)
    assert told[1].text == (
        "rank 1 (process 41 on node), last seen in training batch 5 at step 5, has not answered for 30 s; "
        f"waiting: rank 0 in {WAIT}"
    )


def test_what_the_end_itself_takes_fits_into_what_is_kept_of_the_limit(tmp_path, monkeypatch):
    """Verify the last checkpoint, or look for one; leave the verdict; let the others read it."""
    assert 60 / watchdog.LOOK + 2 * BRIEF + 2 * TICK <= LAST
    dog, asked, stuck = Watchdog(silent=0.1, end=0.4), [], threading.Event()
    dog.folder = tmp_path

    def find(folder, *, deep=True):
        asked.append(deep)
        return stuck.wait(30) if deep else folder / "last.ckpt"

    monkeypatch.setattr(watchdog, "find_last", find)
    assert "last valid checkpoint" in dog.describe_way_on()
    stuck.set()
    assert asked == [True, False]


def test_a_rank_that_answers_again_is_forgiven():
    life = Life().pass_seconds(10, at_work)
    life.pass_seconds(40, lambda rank, second: at_work(rank, second) if rank == 0 else None)
    assert life.found
    assert not any(problem.ends for _, problem in life.found)
    seen = len(life.found)
    life.pass_seconds(100, at_work)
    assert len(life.found) == seen


@pytest.mark.parametrize(
    "late",
    [
        {"patient": True, "idle": True, "place": "the save at step 5"},  # or a start, or a first batch that compiles
        {"idle": False},  # computes
    ],
)
def test_a_rank_that_saves_or_computes_for_an_hour_is_no_hang(late):
    life = Life().pass_seconds(10, at_work)
    life.pass_seconds(3600, lambda rank, second: {"marks": 10, **(late if rank else {"wait": WAIT})})
    assert life.found == []


def test_a_rank_that_does_nothing_while_the_others_wait_is_stuck():
    life = Life().pass_seconds(10, at_work)
    life.pass_seconds(62, lambda rank, second: {"marks": 10, "idle": True, "wait": "" if rank else WAIT})
    assert life.found[0][0] == 41  # the second in which it came there counts as work
    text = life.found[0][1].text
    assert text == f"rank 1 in training batch 5 at step 5 has done nothing for 30 s; waiting: rank 0 in {WAIT}"
    assert life.found[-1][1].ends


def test_ranks_that_all_wait_for_each_other_end_the_run():
    waits = (WAIT, "barrier (checkpoints.py:200)")
    life = Life().pass_seconds(10, at_work)
    life.pass_seconds(61, lambda rank, second: {"marks": 10, "idle": True, "wait": waits[rank]})
    assert life.found[0][1].text.startswith("all ranks have waited for each other for 30 s; waiting: rank 0 in all_re")
    assert life.found[-1][1].ends


def test_idle_ranks_that_nobody_waits_for_and_ranks_that_left_are_no_hang():
    life = Life().pass_seconds(10, at_work)
    assert life.pass_seconds(300, lambda rank, second: {"marks": 10, "idle": True}).found == []
    life.pass_seconds(1, lambda rank, second: {"done": rank == 1})
    assert life.pass_seconds(300, lambda rank, second: at_work(rank, second) if rank == 0 else None).found == []


def test_a_signal_that_asks_to_stop_shortens_the_limits():
    life = Life().pass_seconds(10, at_work)
    life.pass_seconds(12, lambda rank, second: {"wait": WAIT, "signal": 15} if rank == 0 else None)
    assert next(now for now, problem in life.found if problem.ends) == 20
    assert life.found[0][0] == 15


def test_the_clock_of_a_judge_stands_still_while_the_judge_does():
    clock = AwakeClock(most=2)
    assert [clock.advance(time) for time in (100, 101, 171, 172)] == [0, 1, 3, 4]


def test_a_beat_and_a_message_come_back_as_they_were():
    one = beat(3, marks=2, signal=15, born="77")
    assert Beat.decode(one.encode()) == one
    message = Message(rank=1, text="why", code=2, victims=(("node", 5, "9"),))
    assert Message.decode(message.encode()) == message
    assert Message.decode("{}") is Message.decode("no") is Message.decode("[1]") is None


class Shared:
    """A store of one process; `lost` is a server that has gone."""

    def __init__(self):
        self.texts, self.lost = {}, False

    def put(self, key, text):
        if self.lost:
            raise RuntimeError("Connection reset by peer")
        self.texts[key] = text

    def read(self, keys):
        if self.lost:
            raise RuntimeError("Connection reset by peer")
        return {key: self.texts[key] for key in keys if key in self.texts}


class Watched:
    """A watch with limits of tenths of seconds, which notes the code with which it would leave."""

    def __init__(self, store, rank=0, *, folder=None, **options):
        self.codes, self.left = [], threading.Event()
        plan = WatchPlan(
            rank=rank, world=2, silent=0.5, end=1.6, codes={signal.SIGTERM: 143}, folder=folder,
            **{name: options.pop(name) for name in ("speaks", "apart", "launcher") if name in options},
        )  # fmt: skip
        self.watch = RankWatch(store, plan, way_on=lambda: "; go on", leave=self._leave, **options)
        self.watch.start()

    def _leave(self, code):
        self.codes.append(code)
        self.left.set()

    def ends(self):
        assert self.left.wait(20)
        self.watch.close()
        return self.codes


def silent_process():
    child = subprocess.Popen(["sleep", "60"])
    os.kill(child.pid, signal.SIGSTOP)
    return child, beat(1, host=socket.gethostname(), pid=child.pid, born=read_birth(child.pid))


@pytest.mark.parametrize("rank", [0, 1])
def test_a_silent_rank_is_told_ends_the_run_and_is_killed(tmp_path, capfd, rank):
    (tmp_path / "log.txt").write_text("begun\n")
    store, (child, theirs) = Shared(), silent_process()
    store.texts[f"beat/{1 - rank}"] = theirs.encode()
    one = Watched(store, rank, folder=tmp_path)
    assert one.ends() == [1]
    assert child.wait(10) == -signal.SIGKILL
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[0].endswith("; the run is over by 1.6 s (callbacks.watchdog.end)")
    assert lines[1].startswith(f"rank {1 - rank} (process {child.pid} on ")
    assert lines[1].endswith("; the limit is 1.6 s (callbacks.watchdog.end); the run is ended; go on")
    assert [line in (tmp_path / "log.txt").read_text() for line in lines] == [True, True]
    assert (VERDICT in store.texts) == (rank == 0)


def test_a_verdict_of_rank_0_ends_the_others_without_a_word(capfd):
    store = Shared()
    store.texts[VERDICT] = Message(rank=0, text="rank 2 …", code=143).encode()
    assert Watched(store, 1).ends() == [143]
    assert capfd.readouterr().err == ""


def test_a_rank_that_failed_ends_the_others_with_its_reason_and_code(capfd):
    store = Shared()
    other = RankWatch(store, WatchPlan(rank=1, world=2, silent=9, end=99, codes={}))
    other.report_failure("no such\nfile", 2)
    assert Watched(store, 0).ends() == [2]
    assert capfd.readouterr().err == "rank 1 failed: no such file; the run is ended; go on\n"


def test_a_rank_whose_store_is_lost_says_that_rank_0_has_gone(capfd):
    store = Shared()
    store.texts["beat/0"] = beat(1, host="elsewhere", pid=7).encode()
    one = Watched(store, 1)
    time.sleep(0.3)
    store.lost = True
    assert one.ends() == [1]
    assert "rank 0 (process 7 on elsewhere), last seen in training batch 5 at step 5, has gone away" in (
        capfd.readouterr().err
    )


@pytest.mark.slow
def test_a_store_of_the_launcher_that_is_silent_is_no_fault_of_the_ranks():
    store = Shared()
    store.texts["beat/0"] = beat(1, host="elsewhere", pid=7, patient=True).encode()
    one = Watched(store, 1, apart=True)
    time.sleep(0.3)
    store.lost = True
    assert not one.left.wait(3)
    one.watch.close()


def test_the_launcher_that_goes_away_ends_the_rank(capfd):
    assert Watched(Shared(), 0, launcher=1 if os.getppid() != 1 else 2).ends() == [1]
    assert "its launcher (process " in capfd.readouterr().err


@pytest.mark.slow
def test_ranks_that_leave_in_peace_are_not_missed():
    store, before = Shared(), set(threading.enumerate())
    one, two = Watched(store, 0), Watched(store, 1)
    time.sleep(0.5)
    two.watch.close()
    assert Beat.decode(store.texts["beat/1"]).done
    assert not one.left.wait(2.5)
    one.watch.close()
    assert not [one for one in set(threading.enumerate()) - before if one.name.startswith("rank-")]


def test_a_second_signal_ends_a_rank_that_cannot_come_back(capfd):
    before = signal.signal(signal.SIGTERM, lambda number, frame: None)
    try:
        one = Watched(Shared(), 0)
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.3)
        assert one.ends() == [143]
    finally:
        signal.signal(signal.SIGTERM, before)
    assert capfd.readouterr().err == "stopped at once by a second SIGTERM; go on\n"


def test_an_error_of_a_collective_names_the_rank_that_has_gone():
    child = subprocess.Popen(["sleep", "60"])
    store = Shared()
    place = {"host": socket.gethostname(), "pid": child.pid, "born": read_birth(child.pid)}
    store.texts["beat/1"] = beat(1, **place).encode()
    one = Watched(store, 0)
    time.sleep(0.3)
    child.kill()
    child.wait()
    error = RuntimeError("[gloo/transport/tcp/pair.cc:538] Connection closed by peer [127.0.0.1]:4000")
    with pytest.raises(RankLost, match=r"rank 1 \(process \d+ on .*\), last seen in .* has gone away; go on") as caught:
        raise_cause(error, one.watch)
    assert caught.value.exit_code == 1
    assert caught.value.__cause__ is error
    assert (verdict := Message.decode(store.texts[VERDICT]))
    assert verdict.rank == 0
    one.watch.close()


def test_an_error_of_this_rank_is_told_to_the_others_and_stays_what_it_is():
    store = Shared()
    watch = RankWatch(store, WatchPlan(rank=1, world=2, silent=9, end=99, codes={}))
    raise_cause(MemoryError("no room\nmore"), watch)
    assert Message.decode(store.texts[FAILED]) == Message(rank=1, text="MemoryError: no room", code=1)
    assert describe_error(ValueError()) == "ValueError"


def test_nothing_runs_with_one_rank(monkeypatch):
    trainer = SimpleNamespace(world_size=1, callbacks=[Watchdog()])
    before = threading.active_count()
    with watch_ranks(trainer):  # type: ignore[arg-type]
        assert threading.active_count() == before
    assert trainer.callbacks[0].watch is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"silent": 0}, r"silent must be a finite number > 0, got 0"),
        ({"end": -1}, r"end must be a finite number > 0, got -1"),
        ({"silent": 30, "end": 20}, r"end=20 is not more than silent=30; use at least 60"),
    ],
)
def test_limits_that_make_no_sense_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        Watchdog(**values)


@pytest.mark.slow
def test_two_ranks_end_in_time_with_one_line_and_a_valid_checkpoint():
    """One process, which loads torch once, breaks a run in each of these ways."""
    names = (
        "rank 1 stopped in validation",
        "rank 0 stopped in training",
        "rank 0 killed in validation",
        "rank 1 refused at its start, ranks",
        "SIGTERM while a collective blocks",
    )
    only = "|".join(f"^{name}$" for name in names)
    command = [sys.executable, str(CAMPAIGN), "--count", str(len(names)), "--only", only, "--no-resume"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [f"{name} (14 s): held" in done.stdout for name in names] == [True] * len(names)
