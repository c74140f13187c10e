"""What a run measures at its end is in its configuration, and an eval that fails loses nothing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from aptlab.checkpoint import find_checkpoint, is_valid
from aptlab.cli import main
from aptlab.errors import DataError, EvalError
from aptlab.evals.base import Eval, EvalContext, Measurement
from tests.commands.small_run import newest, train, words


@dataclass(frozen=True, kw_only=True)
class Breaking(Eval):
    """Fails when it measures, or already when it is checked."""

    name: ClassVar[str] = "breaking"
    early: bool = False

    def check(self, context: EvalContext) -> None:
        if self.early:
            raise DataError("the text is too short for this")

    def measure(self, context: EvalContext) -> Measurement:
        run = Path(context.folder.path or "").parents[2]
        assert json.loads((run / "result.json").read_text())["status"] == "trained"
        assert is_valid(find_checkpoint(run))
        raise RuntimeError("out of memory, say")


@pytest.fixture(autouse=True)
def _trust(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APTLAB_TRUST", "tests")
    Path("conf/eval").mkdir(parents=True)
    Path("conf/eval/breaking.yaml").write_text("# Break.\n_target_: tests.training.test_ends.Breaking\nearly: false\n")


def test_without_evals_nothing_is_measured():
    made = train("evals=none")
    assert (made.result.status, made.result.lengths, made.result.evals) == ("finished", [], {})
    assert not (made.path / "evals").exists()


def test_one_entry_can_be_taken_out_and_another_one_added():
    asked = (
        "evals.sample=null",
        "+eval@evals.sliding=sliding",
        "evals.sliding.tokens=256",
        "evals.sliding.lengths=[32]",
    )
    made = train(*asked)
    assert len(made.result.lengths) == 4
    assert made.result.evals.keys() == {"sliding"}
    assert (made.path / "evals/step-00000002/sliding/eval.json").is_file()


def test_an_eval_that_fails_loses_neither_run_nor_the_other_evals(capsys):
    message = (
        r"the run is trained and saved in .*1 of its evals failed:\n  evals\.breaking: out of memory, say; measure "
    )
    with pytest.raises(EvalError, match=message):
        train("+eval@evals.breaking=breaking", "evals.lengths=null")
    made = newest()
    assert made.result.status == "finished"
    assert made.result.evals["breaking"] == {"error": "out of memory, say"}
    assert made.result.evals["sample"]["samples"]
    assert made.result.metrics["val/loss"] > 0
    assert "evals.breaking failed: out of memory, say" in (made.path / "log.txt").read_text()
    assert (made.path / "figure.png").is_file()


def test_the_command_ends_with_1_then(capsys):
    assert main(["train", *words("evals=none", "+eval@evals.breaking=breaking")]) == 1
    assert "aptlab eval ckpt=" in capsys.readouterr().err


def test_what_an_eval_knows_to_be_wrong_is_told_before_training(capsys):
    assert main(["train", *words("+eval@evals.breaking=breaking", "evals.breaking.early=true")]) == 2
    assert "evals.breaking: the text is too short for this" in capsys.readouterr().err
    assert not Path("outputs").exists()


@pytest.mark.slow
def test_a_sample_is_the_same_for_the_same_weights_and_seed():
    first, second, third = train(), train(), train("evals.sample.seed=7")
    texts = [made.result.evals["sample"]["samples"][0]["text"] for made in (first, second, third)]
    assert texts[0] == texts[1] != texts[2]
