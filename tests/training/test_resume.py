"""What a run goes on with: its state, the settings that are asked for now, and nothing of another form."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest
import yaml

from aptlab.checkpoint import find_checkpoint, load_checkpoint, read_manifest
from aptlab.cli import main
from aptlab.optim import WSD, Cosine
from aptlab.runs import Run
from tests.commands.small_run import words

EVERY = ("validate.every=4", "callbacks.checkpoints.every=4", "callbacks.checkpoints.keep=10", "evals=none")
FINISHED = Path("outputs/train/2026-01-02/030405-abcd")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of twelve steps, in a folder that holds its text too."""
    home = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        assert main(["train", *words(*EVERY, "trainer.max_steps=12", f"run_dir={FINISHED}")]) == 0
    return home


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of it, in the folder of the test."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    return FINISHED


def train(*overrides: str) -> None:
    assert main(["train", *overrides]) == 0


def at(run: Path, step: int) -> Path:
    return run / "checkpoints" / f"step-{step:08d}.ckpt"


def column(run: Path, name: str) -> dict[int, float]:
    return {int(row["step"]): float(row[name]) for row in csv.DictReader((run / "metrics.csv").open()) if row[name]}


def contents(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in run.rglob("*") if path.is_file()}


def test_the_logged_rate_is_that_of_the_step_whose_loss_stands_beside_it(run):
    assert column(run, "lr") == pytest.approx({n + 1: 3e-3 * Cosine().factor(n, 12) for n in range(12)})


def test_settings_of_the_optimizer_are_used_and_not_only_printed(run):
    asked = ("optim.lr=1e-4", "optim.weight_decay=0.5", "optim.beta2=0.5", "optim.eps=1e-6")
    train(f"ckpt={at(run, 4)}", "load=resume", *asked)
    rates = column(run, "lr")
    assert {step: rates[step] for step in (5, 12)} == pytest.approx(
        {5: 1e-4 * Cosine().factor(4, 12), 12: 1e-4 * Cosine().factor(11, 12)}
    )
    groups = load_checkpoint(at(run, 8))["optimizer_states"][0]["param_groups"]
    assert [(g["weight_decay"], tuple(g["betas"]), g["eps"]) for g in groups] == [
        (0.5, (0.9, 0.5), 1e-6),
        (0.0, (0.9, 0.5), 1e-6),
    ]


def test_an_extended_run_takes_the_rate_of_the_longer_schedule_and_says_so(run, capsys):
    train(f"ckpt={run}", "trainer.max_steps=24")
    assert column(run, "lr")[13] == pytest.approx(3e-3 * Cosine().factor(12, 24))
    line = f"learning rate of step 13: 0.0003 -> {3e-3 * Cosine().factor(12, 24):.4g}, by the schedule over 24 steps"
    assert line in capsys.readouterr().out


def test_a_run_that_goes_on_as_it_was_says_nothing_of_the_rate(run, capsys):
    train(f"ckpt={at(run, 4)}")
    assert "learning rate" not in capsys.readouterr().out


@pytest.mark.parametrize(("first", "second"), [("adamw", "adamw8bit"), ("adamw8bit", "adamw")])
def test_a_state_of_another_form_is_refused_before_the_folder_changes(run, capsys, first, second):
    pytest.importorskip("bitsandbytes", reason="bitsandbytes has no build for this platform")
    if first != "adamw":
        run = Path("outputs/eight")
        train(*words(*EVERY, f"optim={first}", "trainer.max_steps=4", f"run_dir={run}"))
    before = contents(run)
    assert main(["train", f"ckpt={at(run, 4)}", "load=resume", f"optim={second}", "trainer.max_steps=24"]) == 2
    told = capsys.readouterr().err
    assert f"optim: the optimizer's state in {at(run, 4)} cannot be continued: it holds " in told
    assert "or start a new run from its weights with load=weights" in told
    assert contents(run) == before
    train(f"ckpt={at(run, 4)}", "load=weights", f"optim={second}", "trainer.max_steps=2")


def test_rows_of_another_kind_are_refused_before_the_folder_changes(tmp_path, capsys):
    run = Path("outputs/mixed")
    train(*words(*EVERY, "data=mixed", "data.rows.original_len=16", "trainer.max_steps=4", f"run_dir={run}"))
    before = contents(run)
    assert main(["train", f"ckpt={run}", "load=resume", "data.rows.short=0.6", "trainer.max_steps=8"]) == 2
    assert "the checkpoint was trained with other rows: shares" in capsys.readouterr().err
    assert contents(run) == before


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("callbacks.checkpoints.monitor=val/ppl", "monitor val/loss -> val/ppl"),
        ("+trainer.limit_val_batches=1", "trainer.limit_val_batches None -> 1"),
    ],
)
def test_another_measure_begins_anew_with_the_best(run, capsys, asked, said):
    old = read_manifest(find_checkpoint(run, "best"))
    train(f"ckpt={at(run, 8)}", asked, "load=resume", "callbacks.checkpoints.keep=1")
    assert (
        f"the best val/loss so far, {read_manifest(at(run, 8)).metric or old.metric:.4g}, does not count: {said}"
        in (capsys.readouterr().err)
    )
    best = read_manifest(find_checkpoint(run, "best"))
    assert best.step == 12
    assert best.monitor == ("val/ppl" if "ppl" in asked else "val/loss")


def test_a_metric_that_is_not_measured_is_named(capsys):
    train(*words("evals=none", "callbacks.checkpoints.monitor=val/los", "validate.every=1"))
    told = capsys.readouterr().err
    assert told.count("no checkpoint is kept as the best: val/los is not measured; there are: val/bpb, val/loss") == 1


def test_a_finished_run_is_not_measured_again(run, capsys):
    before = contents(run)
    train(f"ckpt={run}")
    shown = capsys.readouterr().out
    assert f"the run {run.absolute()} is finished: 12 steps, val/loss" in shown or f"the run {run} is finished" in shown
    assert "trainer.max_steps=24" in shown
    assert contents(run) == before
    train(f"ckpt={run}", "trainer.max_steps=6", "optim.lr=1", "load=resume")
    assert contents(run) == before


@pytest.mark.slow
def test_results_of_earlier_ends_are_kept(run):
    first = (run / "result.json").read_bytes()
    figure = (run / "figure.png").read_bytes()
    train(f"ckpt={run}", "trainer.max_steps=14")
    train(f"ckpt={run}", "trainer.max_steps=16")
    found = Run.read(run)
    assert found.result is not None
    assert found.result.steps == 16
    assert [result.steps for result in found.list_earlier_results()] == [12, 14]
    assert (run / "results/step-00000012.json").read_bytes() == first
    assert (run / "results/step-00000012.png").read_bytes() == figure
    assert yaml.safe_load((run / "config.yaml").read_text())["trainer"]["max_steps"] == 16


@pytest.mark.slow
def test_a_tokenizer_whose_file_is_gone_is_that_of_the_checkpoint(tmp_path):
    """The file is read once; the checkpoint has its text."""
    first = words("evals=none", "tokenizer=bpe", "tokenizer.vocab=264", "run_dir=outputs/first", "trainer.max_steps=1")
    train(*first)
    Path("outputs/first/tokenizer.json").rename("mine.json")
    train(
        *words("evals=none", "tokenizer=file", "tokenizer.path=mine.json", "run_dir=outputs/run", "trainer.max_steps=1")
    )
    Path("mine.json").unlink()
    train("ckpt=outputs/run", "trainer.max_steps=2")
    assert Run.read("outputs/run").result.steps == 2


def test_many_settings_at_once_are_all_what_ran(run):
    """One real run for the groups whose keys the matrix walks in plans."""
    asked = ("schedule=wsd", "schedule.decay=0.5", "schedule.final=0.5", "trainer.accumulate_grad_batches=2")
    asked += ("data.batch=2", "precision=bf16-mixed", "validate.every=2", "callbacks.checkpoints.every=3", "seed=5")
    asked += ("callbacks.checkpoints.keep=1", "callbacks.checkpoints.keep_best=0", "trainer.log_every_n_steps=3")
    train(f"ckpt={at(run, 4)}", "load=resume", *asked)
    ran = Run.read(run).result.ran
    assert (ran["precision"], ran["validate_every"], ran["max_steps"]) == ("bf16-mixed", 2, 12)
    rule = WSD(decay=0.5, final=0.5)
    rates = {step: rate for step, rate in column(run, "lr").items() if step > 4}
    assert rates == pytest.approx({step: 3e-3 * rule.factor(step - 1, 12) for step in (6, 9, 12)})
    assert [step for step in column(run, "val/loss") if step > 4] == [6, 8, 10, 12]
    assert [path.name for path in (run / "checkpoints").glob("*.ckpt")] == ["step-00000012.ckpt"]
    state = load_checkpoint(at(run, 12))
    assert state["TextData"]["global_batch"] == 2
    assert state["TextData"]["seed"] == 5
    assert state["TextData"]["micro_batches"] == 4 * 2 + 8 * 2
