"""Searches with Optuna: what is tried, what is told, and what happens after a crash."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from aptlab.commands.sweep import run
from aptlab.config import compose
from aptlab.errors import AptlabError, ConfigError
from aptlab.runs import Result
from aptlab.sweep import OptunaSearch
from aptlab.sweep.plan import SweepState
from tests.commands.sweep_driver import FAKE, sweep
from tests.commands.test_sweep_faults import attempts, start, started, wait_for

pytest.importorskip("optuna")
SPACE = ("optim.lr=tag(log, interval(1e-4,1e-2))", "rope=standard,yarn")


@pytest.fixture(autouse=True)
def _no_figure(monkeypatch):
    monkeypatch.setattr("aptlab.report.write.draw_comparison", lambda comparison, path: path)


def search(*args: str, trials: int = 3) -> int:
    return sweep("sweep=optuna", f"sweep.trials={trials}", "sweep.name=x", *SPACE, *args)


def states() -> list[str]:
    import optuna

    study = optuna.load_study(study_name="sweep", storage="sqlite:///outputs/train/sweeps/x/study.db")
    return [trial.state.name for trial in study.get_trials()]


def rates(name: str = "x") -> list[float]:
    with open(f"outputs/train/sweeps/{name}/table.csv") as file:
        return [float(row["optim.lr"]) for row in csv.DictReader(file)]


@pytest.mark.slow
def test_a_search_goes_on_where_it_stopped_and_names_the_best(capsys):
    assert search("launcher.workers=2") == 0
    assert search(trials=5) == 0
    assert states() == ["COMPLETE"] * 5
    assert list(attempts().values()) == [1] * 5
    assert len(set(rates())) == 5
    assert all(1e-4 <= rate <= 1e-2 for rate in rates())
    out = capsys.readouterr().out
    assert "best     val/loss 1.5" in out
    repeat = next(line for line in out.splitlines()[::-1] if line.startswith("repeat"))
    assert any(f"optim.lr={rate!r}" in repeat for rate in rates())


def test_the_same_seed_tries_the_same_values():
    search("sampler=random", trials=2)
    first = rates()
    search("sampler=random", "sweep.fresh=true", trials=2)
    assert rates("x-2") == first


def test_failed_trials_are_told_and_replaced_by_the_next_invocation(monkeypatch, capsys):
    monkeypatch.setenv("FAKE_NO_RESULT", "1")
    assert search(trials=2) == 1
    assert states() == ["FAIL", "FAIL"]
    assert "ended without a result.json" in capsys.readouterr().out
    monkeypatch.delenv("FAKE_NO_RESULT")
    assert search("sweep.retry_failed=false", trials=2) == 0
    assert states() == ["FAIL", "FAIL"]
    assert search(trials=2) == 0
    assert states() == ["FAIL", "FAIL", "COMPLETE", "COMPLETE"]


@pytest.mark.slow
def test_a_trial_that_was_running_when_its_parent_was_killed_is_continued():
    args = ("sweep=optuna", "sweep.trials=2", "sweep.name=x", *SPACE)
    parent = start(*args, FAKE_SLEEP="30")
    wait_for(lambda: started(1))
    parent.kill()
    parent.communicate()
    assert states() == ["RUNNING"]
    assert search(trials=2) == 0
    assert states() == ["COMPLETE", "COMPLETE"]
    assert sorted(attempts().values()) == [1, 2]


def test_another_space_under_the_same_name_is_refused():
    search(trials=1)
    with pytest.raises(AptlabError, match=r"sweep.name=x searched another space before; take another name"):
        run(["sweep=optuna", "sweep.name=x", "seed=1,2"], command=FAKE)


def test_every_choice_and_every_end_is_checked_first():
    with pytest.raises(ConfigError, match=r"rope=yrn: no such option; did you mean yarn"):
        run(["sweep=optuna", "rope=standard,yrn", "optim.lr=interval(1e-4,1e-2)"], command=FAKE)
    with pytest.raises(ConfigError, match=r"optim.lr: must be"):
        run(["sweep=optuna", "optim.lr=interval(-1,1)"], command=FAKE)
    assert not Path("outputs").exists()


def plan_search(words: str, **options):
    return OptunaSearch(**options).make_plan(words.split(), lambda given: compose("train", given))


OTHERWISE = [
    (
        "data.batch=8,16",
        {},
        r"^data\.batch=8 and data\.batch=16 are not measured alike \(validation rows differ\), so .*null",
    ),
    (
        "tokenizer=bytes,bpe",
        {},
        r"\(tokenizer differ\).* best val/loss.*; set sweep\.metric=val/bpb and data\.val_batches",
    ),
    (
        "tokenizer=bytes,bpe",
        {"metric": "val/bpb"},
        r"no best val/bpb among them; set .*=val/bpb and data\.val_batches=null",
    ),
    ("tokenizer=bytes,bpe data.val_batches=null", {"metric": "ppl@1x"}, r"one of them at a time, or by .*=tokens/s"),
    ("context=64,128", {}, r"\(context differ\)"),
    ("seed=0,1 data.split.seed=0,1", {"metric": "val/bpb"}, r"^data\.split\.seed=0 and .*\(data\.split differ\)"),
]
ALIKE = [
    ("data.batch=8,16 data.val_batches=null", {}),
    ("data.batch=8,16", {"metric": "ppl@1x"}),
    ("tokenizer=bytes,bpe data.val_batches=null", {"metric": "val/bpb"}),
    ("context=64,128", {"metric": "tokens/s"}),
]


@pytest.mark.parametrize(("words", "options", "message"), OTHERWISE)
def test_trials_that_are_measured_otherwise_have_no_best(words, options, message):
    with pytest.raises(ConfigError, match=message):
        plan_search(words, **options)


@pytest.mark.parametrize(("words", "options"), ALIKE)
def test_trials_that_are_measured_alike_are_searched(words, options):
    assert plan_search(words, **options).kind == "optuna"


def test_a_trial_on_text_that_has_changed_meanwhile_does_not_count(tmp_path, caplog):
    plan = plan_search("optim.lr=interval(1e-4,1e-2)", name="x")
    plan.open_jobs(tmp_path, {})
    jobs = iter(plan.next_jobs(SweepState()))
    for text, loss in (("a", 2.0), ("b", 1.0), ("a", 1.5)):
        plan.record_result(next(jobs), Result("train", 0, data={"fingerprint": text}, metrics={"val/loss": loss}))
    assert [line for line in caplog.messages if line.startswith("trial 1 was measured on other text than the trials")]
    best, _, others = plan.describe_best()
    assert best.startswith("best     val/loss 1.5 in trial 2 of 2")
    assert others == "left out 1 of other text"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"metric": "val/los"}, "metric=val/los: no such metric; did you mean val/loss?"),
        ({"direction": "up"}, "direction=up: no such direction; allowed: maximize, minimize"),
        ({"sampler": "grid"}, "sampler=grid: no such sampler; allowed: random, tpe"),
        ({"trials": 0}, "trials must be a finite number >= 1, got 0"),
    ],
)
def test_a_wrong_search_is_refused(values, message):
    with pytest.raises(ConfigError) as caught:
        OptunaSearch(**values)
    assert message in str(caught.value)


def test_a_search_without_a_space_is_refused():
    with pytest.raises(ConfigError, match="sweep=optuna has nothing to search; add for example"):
        run(["sweep=optuna", "seed=1"], command=FAKE)


def test_a_missing_optuna_names_its_extra(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"sweep=optuna needs optuna; pip install 'aptlab\[search\]'"):
        OptunaSearch()
