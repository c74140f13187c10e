"""Overrides, names, launchers: the parts of a sweep that need no training."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from aptlab.config.sweeps import (
    ChoiceAxis,
    IntervalAxis,
    expand_grid,
    format_override,
    read_sweep_axes,
    split_arguments,
)
from aptlab.errors import ConfigError
from aptlab.sweep import launchers
from aptlab.sweep.child import ChildProcess, read_stop_signal
from aptlab.sweep.folder import read_log_tail
from aptlab.sweep.job import (
    JobCommand,
    JobEvent,
    find_varied_overrides,
    hash_experiment,
    make_safe_name,
    make_sweep_name,
)
from aptlab.sweep.runner import describe_exit_code, format_job_time


def value(override: str):
    return OverridesParser.create().parse_override(override).value()


def test_the_last_key_turns_fastest():
    assert expand_grid(["a=1,2", "b=x", "c=3,4"]) == [[f"a={a}", "b=x", f"c={c}"] for a in (1, 2) for c in (3, 4)]


def test_a_later_override_replaces_an_earlier_one():
    assert expand_grid(["a=1,2", "a=3"]) == [["a=3"]]


@pytest.mark.parametrize("form", ["{}", "choice({})"])
def test_values_of_any_kind_come_back_exactly(form):
    words = [
        "'x,y'",
        "[1,[2,3]]",
        "{k:'a b',l:[1]}",
        '"it\'s"',
        "'1'",
        "1",
        "null",
        "true",
        "1e-3",
        "a b",
        "'é/ü'",
        "''",
    ]
    jobs = expand_grid(["key=" + form.format(",".join(words))])
    expected = [value(f"key={word}") for word in words]
    read = [value(job[0]) for job in jobs]
    assert read == expected
    assert [type(item) for item in read] == [type(item) for item in expected]


def test_ranges_and_globs_are_expanded():
    assert expand_grid(["seed=range(1,4)"]) == [["seed=1"], ["seed=2"], ["seed=3"]]
    assert ["rope=yarn"] in expand_grid(["rope=glob(*,exclude=n*)"])
    assert ["rope=ntk"] not in expand_grid(["rope=glob(*,exclude=n*)"])


def test_a_search_space_is_read():
    fixed, space = read_sweep_axes(["rope=yarn", "a=1,2", "lr=tag(log, interval(1e-4,1e-2))", "n=int(interval(1,8))"])
    assert fixed == ["rope=yarn"]
    assert space == [
        ChoiceAxis("a", ("1", "2")),
        IntervalAxis("lr", 1e-4, 1e-2, log=True),
        IntervalAxis("n", 1, 8, integer=True),
    ]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("a=(", r"a=\(: this is no override; write key=a,b"),
        ("a=shuffle(1,2)", "a: shuffle.. would give other jobs each time"),
        ("a=glob(*)", "glob.. names the options of a group, and a is none"),
        ("a=tag(log,interval(0,1))", "a: a logarithmic interval begins above 0, not at 0"),
        ("a=tag(lin,interval(0,1))", "a: unknown tag lin; the only tag is log"),
        ("a=interval(2,1)", "goes from the smaller number to the larger one"),
        ("rope=glob(zz*)", "no value at all"),
    ],
)
def test_a_wrong_space_is_refused(override, message):
    with pytest.raises(ConfigError, match=message):
        read_sweep_axes(["ok=1", override])


def test_arguments_of_the_sweep_are_told_apart():
    mine, rest = split_arguments(
        ["sweep=optuna", "sweep.name=x", "launcher.workers=2", "sweeper=1", "seed=0"], ("sweep", "launcher")
    )
    assert mine == ["sweep=optuna", "sweep.name=x", "launcher.workers=2"]
    assert rest == ["sweeper=1", "seed=0"]


@pytest.mark.parametrize("text", ["a b,c", "it's", "back\\", "quote\\'", "ümlaut=[1]", "${x}"])
def test_any_text_can_be_assigned(text):
    assert value(format_override("run_dir", text)) == text


def test_folder_names_are_safe_short_and_keep_their_script():
    assert make_safe_name("data.path='/a b',seed=0") == "data.path=a_b,seed=0"
    assert make_safe_name("标签=é") == "标签=é"
    assert make_safe_name("../..") == "job"
    assert len(make_safe_name("é" * 500).encode()) <= 96
    assert make_safe_name("x" * 300 + "/") == "x" * 96


def test_a_sweep_is_named_by_its_jobs_in_any_order():
    keys = [hash_experiment(["a=1", "b=2"], "h"), hash_experiment(["a=2"], "h")]
    assert make_sweep_name(keys) == make_sweep_name(reversed(keys))
    assert hash_experiment(["b=2", "a=1"], "h") == keys[0]
    assert hash_experiment(["a=1", "b=2"], "other") != keys[0]


def test_only_what_differs_is_in_a_name():
    assert find_varied_overrides([["a=1", "b=2"], ["a=1", "b=3"]]) == [("b=2",), ("b=3",)]


def make_task(tmp_path: Path, code: str, index: int = 0) -> JobCommand:
    command = (sys.executable, "-c", code)
    return JobCommand(index, "t", command, str(tmp_path / f"{index}.log"), str(tmp_path / ".stop"), str(tmp_path))


@pytest.mark.parametrize(
    "launcher",
    [
        launchers.ProcessLauncher(workers=2),
        launchers.JoblibLauncher(workers=2),
        launchers.SubmititLauncher(cluster="local", workers=2),
    ],
    ids=lambda launcher: type(launcher).__name__,
)
def test_every_launcher_runs_all_tasks_and_tells_their_exit_codes(launcher, tmp_path):
    seen: list[JobEvent] = []
    tasks = [make_task(tmp_path, f"print('hello {i}'); raise SystemExit({i})", i) for i in range(3)]
    launcher.run(iter(tasks), seen.append)
    ended = {event.task.index: event.code for event in seen if event.kind == "ended"}
    assert ended == {0: 0, 1: 1, 2: 2}
    assert [event.kind for event in seen[:2]] == ["started", "started"]
    assert read_log_tail(tmp_path / "2.log") == ["hello 2"]


def test_tasks_are_asked_for_only_when_there_is_room(tmp_path):
    ended, requests = [], []

    def tasks():
        for i in range(3):
            requests.append((i, len(ended)))
            yield make_task(tmp_path, "pass", i)

    launchers.ProcessLauncher(workers=1).run(tasks(), lambda event: ended.append(1) if event.kind == "ended" else None)
    assert requests == [(0, 0), (1, 1), (2, 2)]


def test_workers_share_cores_and_gpus(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(launchers, "describe_machine", lambda: {"cores": 8, "gpus": ["a", "b", "c", "d"]})
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert launchers.share_threads(3) == {"OMP_NUM_THREADS": "2"}
    assert launchers.share_threads(1) == {}
    assert launchers.share_gpus(1, 2) == {"CUDA_VISIBLE_DEVICES": "2,3"}
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert launchers.share_threads(3) == {}


def test_a_missing_package_names_its_extra(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"launcher=joblib needs joblib; pip install 'aptlab\[launchers\]'"):
        launchers.JoblibLauncher()
    with pytest.raises(ConfigError, match=r"launcher=submitit needs submitit; pip install 'aptlab\[launchers\]'"):
        launchers.SubmititLauncher()


def test_a_command_that_cannot_start_fails_with_its_reason(tmp_path):
    task = JobCommand(0, "t", ("/no/such/program",), str(tmp_path / "log"), str(tmp_path / "stop"), str(tmp_path))
    assert ChildProcess(task, grace=1).poll() == 127
    assert "cannot start /no/such/program" in (tmp_path / "log").read_text()


def test_a_job_that_does_not_listen_is_killed_after_the_grace_period(tmp_path):
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    child = ChildProcess(make_task(tmp_path, deaf), grace=0.1)
    while not (tmp_path / "0.log").read_text():
        assert child.poll() is None
    assert read_stop_signal(child.task.stop) is None
    (tmp_path / ".stop").write_text("15")
    while child.poll() is None:
        assert child.seconds < 20
    assert child.poll() == -9


def test_ranks_do_not_outlive_their_job(tmp_path):
    code = "import os, subprocess; p = subprocess.Popen(['sleep', '60']); print(p.pid, flush=True)"
    child = ChildProcess(make_task(tmp_path, code), grace=1)
    while child.poll() is None:
        pass
    rank = int((tmp_path / "0.log").read_text())
    end = time.monotonic() + 10
    while alive(rank):
        assert time.monotonic() < end


def alive(process: int) -> bool:
    """Whether a process runs; one that only waits to be collected does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_exit_codes_and_times_in_words():
    assert describe_exit_code(-9) == "killed by signal 9 (out of memory?)"
    assert [format_job_time(s) for s in (3.21, 75, 3725)] == ["3.2 s", "1:15", "1:02:05"]


def test_the_tail_of_a_log_has_no_progress_bar(tmp_path):
    (tmp_path / "log").write_text("a\n" + "\r".join(f"{i}%" for i in range(50)) + "\n\nend\n")
    assert read_log_tail(tmp_path / "log", 2) == ["49%", "end"]
