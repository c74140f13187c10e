"""Tracking never holds up, stops or betrays a run."""

import logging
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import wandb
import yaml

from aptlab.errors import ConfigError
from aptlab.loggers import CSVMetrics, RunLogger, Tracking, WandbRun
from aptlab.loggers.wandb_start import BUDGET, OFFLINE_SECONDS

CONF = Path(__file__).parents[2] / "conf" / "logger"


class FakeRun:
    """A W&B run that records its calls, or fails."""

    def __init__(self, error=None):
        self.id, self.project, self.dir = "abc", "p", "/nowhere/files"
        self.error, self.calls, self.summary = error, [], {}

    def log(self, values, step=None):
        self.calls.append((step, values))
        if self.error:
            raise self.error

    def mark_preempting(self):
        self.calls.append("preempting")

    def finish(self, exit_code):
        self.calls.append(exit_code)


@pytest.mark.parametrize("option", ["auto", "csv", "wandb"])
def test_every_option_builds_and_only_wandb_says_something(tmp_path, option, caplog):
    values = yaml.safe_load((CONF / f"{option}.yaml").read_text())
    assert values.pop("_target_") == "aptlab.loggers.Tracking"
    rule = Tracking(**values)
    assert rule.mode == {"auto": "auto", "wandb": "online"}.get(option, "none")
    if option != "wandb":
        with caplog.at_level(logging.INFO, logger="aptlab"):
            loggers = rule.make(tmp_path)
        assert [type(logger) for logger in loggers] == [CSVMetrics]
        assert [record for record in caplog.records if record.name.startswith("aptlab")] == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mode": "onlin"}, "mode=onlin is not a way of tracking; did you mean online?"),
        ({"timeout": 60.0}, "timeout=60 would hold up training; at most 6 seconds"),
        ({"timeout": 0.0}, "timeout must be a finite number > 0, got 0.0"),
        ({"tags": "good"}, "tags=good is one word; write tags=[good]"),
        ({"base_url": "my.host"}, "base_url=my.host is no address; write https://my.host"),
    ],
)
def test_wrong_values_are_refused(values, message):
    with pytest.raises(ConfigError) as caught:
        Tracking(**values)
    assert str(caught.value) == message


def test_other_ranks_get_no_wandb(tmp_path, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert [type(logger) for logger in Tracking(mode="offline").make(tmp_path)] == [CSVMetrics]


@pytest.mark.slow
def test_offline_run_keeps_its_id_and_holds_no_secret(tmp_path, monkeypatch, caplog, capfd):
    planted = [f"planted-secret-{number}" for number in range(3)]
    monkeypatch.setenv("WANDB_API_KEY", planted[0] + "x" * 40)
    monkeypatch.setattr(sys, "argv", ["aptlab", f"logger.api_key={planted[1]}"])
    config = {
        "server": {"password": planted[2]},
        "note": f"ordinary words and {planted[2]}",
        "x": {"api_key": planted[1]},
    }
    rule = Tracking(mode="offline", tags=["a"], base_url="http://127.0.0.1:9")
    identity = None
    for part in range(2):
        time.sleep(1.1 * part)  # wandb names the folder of a run by the second in which it began
        with caplog.at_level(logging.INFO, logger="aptlab"):
            metrics, run = rule.make(tmp_path, config=config, resume_id=identity)
        assert isinstance(run, WandbRun)
        assert not run.online
        assert identity in (None, run.id)
        identity = run.id
        for logger in (metrics, run):
            logger.log_metrics({"loss": 1.0}, step=part)
            logger.finalize("success")
        run.log_result({"status": "finished", "metrics": {"val/loss": 1.0}, "api_key": planted[1]})
        run.close()
    assert len(list((tmp_path / "wandb").glob(f"offline-run-*-{identity}"))) == 2
    assert "W&B offline (as configured); to upload later: wandb sync " in caplog.text
    wandb.teardown()  # or the file is not written yet (findings/wandb_file_after_finish.sh)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    stored = [path.read_bytes() for path in files if path.suffix == ".wandb"]
    assert [b"ordinary words and ***" in data for data in stored] == [True, True]
    assert [path for path in files for secret in planted if secret.encode() in path.read_bytes()] == []
    assert capfd.readouterr().out == ""


def test_an_unreachable_server_means_an_offline_run(tmp_path, monkeypatch, closed, caplog):
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    with caplog.at_level(logging.INFO, logger="aptlab"):
        _, run = Tracking(mode="online", base_url=closed).make(tmp_path)
    assert isinstance(run, WandbRun)
    assert not run.online
    run.close()
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("aptlab")]
    assert len(lines) == 1
    assert lines[0].startswith(f"W&B offline ({closed.removeprefix('http://')} cannot be reached (")


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["auto", "online"])
def test_a_silent_server_is_given_six_seconds_and_the_run_is_offline(tmp_path, monkeypatch, silent, mode, caplog):
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    with caplog.at_level(logging.INFO, logger="aptlab"):
        _, run = Tracking(mode=mode, base_url=silent, timeout=6).make(tmp_path)
    assert isinstance(run, WandbRun)
    assert not run.online
    run.close()
    waited = re.search(r"did not answer within ([\d.]+) s\); to upload later: wandb sync", caplog.text)
    assert waited
    assert float(waited[1]) <= BUDGET - OFFLINE_SECONDS


@pytest.mark.slow
def test_a_server_that_fails_at_login_means_an_offline_run(tmp_path, monkeypatch, bad_server):
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setattr("aptlab.loggers.wandb_start.GIVING_UP", 30.0)  # no clock is asserted here
    _, run = Tracking(mode="online", base_url=bad_server).make(tmp_path)
    assert isinstance(run, WandbRun)
    assert not run.online
    run.log_metrics({"loss": 1.0}, step=0)
    run.close()
    left = [path.name.split("-")[0] for path in (tmp_path / "wandb").glob("*run-*")]
    assert left == ["offline"]


def test_a_start_that_fails_or_hangs_leaves_metrics_csv(tmp_path, monkeypatch, caplog):
    import wandb

    def fail(**unused):
        raise RuntimeError("no space for WANDB_API_KEY=abc1")

    monkeypatch.setattr(wandb, "init", fail)
    loggers = Tracking(mode="offline").make(tmp_path)
    assert [type(logger) for logger in loggers] == [CSVMetrics]
    assert "no W&B: no space for WANDB_API_KEY=***; metrics are in metrics.csv" in caplog.text

    monkeypatch.setattr("aptlab.loggers.wandb_start.BUDGET", 0.1)
    monkeypatch.setattr("aptlab.loggers.wandb_start.OFFLINE_LIMIT", 0.1)
    monkeypatch.setattr(wandb, "init", lambda **unused: time.sleep(2))
    begun = time.monotonic()
    assert len(Tracking(mode="offline").make(tmp_path)) == 1
    assert time.monotonic() - begun < 1.5
    assert "no W&B: no answer within 0 s" in caplog.text


def test_wandb_that_dies_mid_run_is_reported_once(tmp_path, caplog):
    run = FakeRun(BrokenPipeError("service is gone"))
    logger = WandbRun(run, tmp_path, online=True)
    for step in range(3):
        logger.log_metrics({"loss": 1.0}, step)
    logger.log_result({"a": 1})
    logger.close()
    assert caplog.text.count("W&B stopped working (service is gone); the run goes on with metrics.csv") == 1
    assert len(run.calls) == 1


def test_steps_sent_before_a_resume_are_not_sent_again(tmp_path):
    run = FakeRun()
    logger = WandbRun(run, tmp_path, online=True, logged_until=4)
    for step in range(3, 7):
        logger.log_metrics({"loss": step, "text": "x"}, step)
    assert run.calls == [(5, {"loss": 5.0}), (6, {"loss": 6.0})]


def test_result_preemption_and_end_reach_the_run(tmp_path):
    run = FakeRun()
    logger = WandbRun(run, tmp_path, online=True)
    logger.log_result({"metrics": {"val/loss": 2.0}, "lengths": [1], "db": {"password": "abcdefgh"}})
    logger.mark_preempting()
    logger.close(143)
    assert run.summary == {"result/metrics/val/loss": 2.0, "result/db/password": "***"}
    assert run.calls == ["preempting", 143]


def test_a_run_treats_all_its_loggers_alike(tmp_path):
    """Nobody has to know which logger takes a result, a figure or the end of the run."""
    run = FakeRun()
    loggers: list[RunLogger] = [CSVMetrics(tmp_path), WandbRun(run, tmp_path, online=True)]
    for logger in loggers:
        logger.resume(3)
        logger.log_metrics({"loss": 1.0}, 4)
        logger.log_result({"a": 1})
        logger.mark_preempting()
        logger.close(143)
    assert [logger.run_id for logger in loggers] == [None, "abc"]
    assert (tmp_path / "metrics.csv").read_text() == "step,epoch,loss\n4,,1.0\n"
    assert run.calls == [(4, {"loss": 1.0}), "preempting", 143]


def test_a_logger_of_a_run_is_abstract():
    with pytest.raises(TypeError, match="abstract"):
        RunLogger()


@pytest.mark.slow
def test_a_figure_is_kept_with_the_run(tmp_path):
    import matplotlib.pyplot as plt

    plt.figure(figsize=(1, 1)).savefig(tmp_path / "figure.png")
    _, run = Tracking(mode="offline").make(tmp_path)
    assert isinstance(run, WandbRun)
    run.log_figure(tmp_path / "figure.png")
    run.close()
    assert list((tmp_path / "wandb").rglob("media/images/figure*.png"))


@pytest.mark.slow
def test_a_killed_wandb_service_does_not_disturb_the_run(tmp_path):
    code = """
import os, signal, subprocess, sys
from aptlab.loggers import Tracking
metrics, run = Tracking(mode="offline").make(sys.argv[1])
run.log_metrics({"loss": 1.0}, 0)
children = subprocess.run(["pgrep", "-P", str(os.getpid()), "wandb-core"], capture_output=True, text=True).stdout
for pid in children.split():
    os.kill(int(pid), signal.SIGKILL)
    os.waitpid(int(pid), 0)
for step in range(1, 5):
    for logger in (metrics, run):
        logger.log_metrics({"loss": 1.0}, step)
metrics.finalize("success")
run.close()
print("killed", len(children.split()))
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "killed 1\n"
    assert "Traceback" not in done.stderr
    assert done.stderr.count("W&B stopped working") == 1
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) == 5
