"""Sweeps over a grid: nothing runs before everything is checked, nothing finished runs twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aptlab.commands.sweep import run
from aptlab.errors import AptlabError, ConfigError
from aptlab.runs.atomic import read_yaml
from tests.commands.sweep_driver import FAKE, sweep

HOME = Path("outputs/train/sweeps")


@pytest.fixture(autouse=True)
def _no_figure(request, monkeypatch):
    """Drawing takes longer than the rest of a sweep of fake trainers."""
    if "writes_its_files" not in request.node.name:
        monkeypatch.setattr("aptlab.report.write.draw_comparison", lambda comparison, path: path)


def checked(*args: str) -> int:
    """With every job composed, as the command line does it."""
    return run(list(args), command=FAKE)


def only_folder() -> Path:
    (folder,) = HOME.iterdir()
    return folder


def attempts(folder: Path) -> dict[str, int]:
    """How often each job was started."""
    return {path.parent.name: len(path.read_text().splitlines()) for path in sorted(folder.glob("jobs/*/attempts.txt"))}


def events(folder: Path) -> list[tuple[str, int]]:
    lines = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    return [(line["event"], line["job"]) for line in lines]


def test_a_grid_runs_every_combination_and_writes_its_files(capsys):
    assert checked("rope=standard,yarn", "seed=0,1", "launcher.workers=2") == 0
    folder, out = only_folder(), capsys.readouterr().out
    names = ["000-rope=standard,seed=0", "001-rope=standard,seed=1", "002-rope=yarn,seed=0", "003-rope=yarn,seed=1"]
    assert attempts(folder) == dict.fromkeys(names, 1)
    assert {"sweep.yaml", "journal.jsonl", "table.csv", "table.md", "table.txt", "figure.png"} <= {
        path.name for path in folder.iterdir()
    }
    assert sorted(events(folder)) == sorted((e, i) for e in ("started", "finished") for i in range(4))
    assert "[4/4] done    rope=yarn,seed=1  val/loss 1.6100" in out
    assert [job["overrides"] for job in read_yaml(folder / "sweep.yaml")["jobs"]][3] == ["rope=yarn", "seed=1"]


def test_the_same_command_repeats_nothing_that_is_finished(capsys):
    sweep("seed=0,1")
    assert sweep("seed=1,0") == 0
    assert attempts(only_folder()) == {"000-seed=0": 1, "001-seed=1": 1}
    assert "2, 2 finished before" in capsys.readouterr().out


def test_fresh_starts_a_new_sweep_and_the_latest_is_continued():
    for args in (["seed=0"], ["seed=0", "sweep.fresh=true"], ["seed=0"]):
        assert sweep(*args) == 0
    first, second = sorted(HOME.iterdir())
    assert second.name == f"{first.name}-2"
    assert list(attempts(first).values()) == list(attempts(second).values()) == [1]


def test_a_named_sweep_takes_more_jobs_later_and_keeps_their_numbers():
    sweep("seed=0,2", "sweep.name=mine")
    sweep("seed=0,1,2", "sweep.name=mine")
    assert attempts(HOME / "mine") == {"000-seed=0": 1, "001-seed=2": 1, "002-seed=1": 1}


def test_a_failed_job_does_not_stop_the_rest_and_is_shown_at_the_end(capsys, monkeypatch):
    monkeypatch.setenv("FAKE_FAIL", "seed=0")
    assert sweep("seed=0,1") == 1
    out, folder = capsys.readouterr().out, only_folder()
    assert events(folder)[-1] == ("finished", 1)
    assert "failed   seed=0: exit code 3\n  | first line\n  | RuntimeError: the fake trainer" in out
    assert f"log {folder}/jobs/000-seed=0/console.txt" in out
    assert "1 of 2 jobs failed; run them again with: aptlab train -m seed=0,1" in out


def test_a_failed_job_is_retried_by_the_next_invocation_unless_forbidden(capsys, monkeypatch):
    monkeypatch.setenv("FAKE_FAIL", "seed=0")
    sweep("seed=0,1")
    assert sweep("seed=0,1", "sweep.retry_failed=false") == 1
    assert "failed before; sweep.retry_failed=true runs it again" in capsys.readouterr().out
    assert attempts(only_folder()) == {"000-seed=0": 1, "001-seed=1": 1}
    monkeypatch.delenv("FAKE_FAIL")
    assert sweep("seed=0,1") == 0
    assert attempts(only_folder()) == {"000-seed=0": 2, "001-seed=1": 1}


def test_a_job_without_a_result_has_failed(capsys, monkeypatch):
    monkeypatch.setenv("FAKE_NO_RESULT", "1")
    assert sweep("seed=0") == 1
    assert "ended without a result.json" in capsys.readouterr().out


def test_a_damaged_result_is_run_again():
    sweep("seed=0")
    result = only_folder() / "jobs/000-seed=0/result.json"
    result.write_text(result.read_text()[:40])
    assert sweep("seed=0") == 0
    assert list(attempts(only_folder()).values()) == [2]


def test_a_folder_with_the_result_of_another_job_is_not_believed():
    sweep("seed=0,1")
    jobs = only_folder() / "jobs"
    (jobs / "001-seed=1/result.json").write_text((jobs / "000-seed=0/result.json").read_text())
    with pytest.raises(AptlabError, match=r"result of another job \(without seed=1\); move it away"):
        sweep("seed=0,1")


def test_an_unfinished_job_is_continued_from_its_checkpoint(monkeypatch):
    monkeypatch.setenv("FAKE_CHECKPOINT", "1")
    monkeypatch.setenv("FAKE_FAIL", "seed=0")
    sweep("seed=0", "rope=yarn")
    sweep("seed=0", "rope=yarn")
    folder = only_folder() / "jobs/000-seed=0,rope=yarn"
    first, second = [json.loads(line) for line in (folder / "attempts.txt").read_text().splitlines()]
    assert not any(word.startswith("ckpt=") for word in first)
    assert second == ["seed=0", "rope=yarn", f"ckpt='{folder.absolute()}'", f"run_dir='{folder.absolute()}'"]


def test_a_damaged_checkpoint_is_not_continued(monkeypatch):
    monkeypatch.setenv("FAKE_CHECKPOINT", "1")
    monkeypatch.setenv("FAKE_FAIL", "seed=0")
    sweep("seed=0")
    folder = only_folder() / "jobs/000-seed=0"
    (folder / "checkpoints/step-00000005.ckpt").write_bytes(b"other")
    sweep("seed=0")
    assert "ckpt=" not in (folder / "attempts.txt").read_text()


def test_all_problems_of_all_jobs_are_told_before_any_folder_is_made():
    with pytest.raises(ConfigError) as caught:
        checked("rope=yarn,yrn", "seed=0,1", "optim.lrr=3")
    message = str(caught.value)
    assert message.startswith("4 of 4 jobs cannot run; nothing was started")
    assert "rope=yrn: no such option; did you mean yarn?  [rope=yrn,seed=0, rope=yrn,seed=1]" in message
    assert "optim.lrr: aptlab.optim.AdamW has no such parameter; did you mean lr?" in message
    assert not Path("outputs").exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["seed=0,1", "sweep.nam=x"], "sweep.nam.*did you mean name"),
        (["seed=0,1", "sweep=gird"], "sweep=gird: no such option; did you mean grid"),
        (["seed=0,1", "launcher.workers=0"], "launcher.workers: must be a finite number >= 1, got 0"),
        (["seed=0,1", "sweep.name='a/b'"], "sweep.name=a/b: must be the name of one folder, for example a_b"),
        (["seed=0,1", "run_dir=x"], "run_dir=x: each job of a sweep has a folder of its own"),
        (["job=a,b"], "give each of them one value"),
        (["seed=interval(0,1)"], "seed: an interval has no list of values; add sweep=optuna"),
        (["launcher=submitit", "launcher.cluster=pbs"], "launcher.cluster=pbs: must be slurm or local"),
    ],
)
def test_a_wrong_sweep_is_refused(args, message):
    with pytest.raises(ConfigError, match=message):
        checked(*args)
    assert not Path("outputs").exists()


def test_too_few_gpus_are_refused(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5,7")
    with pytest.raises(ConfigError, match="needs 4 GPUs, this machine has 3"):
        sweep("seed=0", "launcher.workers=2", "launcher.gpus=2")


def test_another_kind_of_sweep_of_the_same_name_is_refused():
    sweep("seed=0", "sweep.name=x")
    with pytest.raises(AptlabError, match=r"is a sweep of kind grid, not optuna; use another sweep.name"):
        sweep("sweep=optuna", "seed=0,1", "sweep.trials=1", "sweep.name=x")


def test_secrets_are_not_written_down(monkeypatch):
    checked("seed=0,1", "job=sk-abcdefghijklmnopqrstuv")
    (folder,) = Path("outputs").glob("*/sweeps/*")
    assert "sk-abc" not in (folder / "sweep.yaml").read_text()
