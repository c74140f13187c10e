"""A task that is no language model goes through all of `aptlab train`."""

from __future__ import annotations

import csv
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule

from aptlab.checkpoint import load_checkpoint
from aptlab.cli import main
from aptlab.commands.train import run
from aptlab.errors import ConfigError
from aptlab.training.protocols import require_run_data
from tests.commands.small_run import newest
from tests.training.regression import CONF

WORDS = ["task=regression", "data=vectors", "size=debug", "trainer.max_steps=6", "trainer.log_every_n_steps=2"]
WORDS += [
    "validate.every=2",
    "callbacks.checkpoints.every=2",
    "logger=csv",
    "device=cpu",
    "optim.lr=0.1",
    "schedule.warmup=0",
]
ENDS = ["evals=none", "+eval@evals.slope=slope"]


@pytest.fixture(autouse=True)
def _options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APTLAB_TRUST", "tests")
    for name, text in CONF.items():
        path = Path("conf", f"{name}.yaml")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text).lstrip())


def train(*words: str) -> Any:
    assert run([*WORDS, *ENDS, *words]) == 0
    return newest()


def weights(folder: Path, step: int) -> dict[str, torch.Tensor]:
    return load_checkpoint(folder / "checkpoints" / f"step-{step:08d}.ckpt")["state_dict"]


def test_it_trains_validates_and_reports_in_its_own_units(capsys):
    made = train()
    rows = list(csv.DictReader((made.path / "metrics.csv").open()))
    losses = [float(row["val/loss"]) for row in rows if row["val/loss"]]
    assert len(losses) == 3
    assert losses[2] < losses[0]
    assert all(float(row["samples_per_second"]) > 0 for row in rows if row["train/loss"])
    result = made.result
    assert (result.steps, result.tokens, result.unit, result.lengths) == (6, 6 * 4, "samples", [])
    assert (result.parameters, result.flops_per_token) == (4, 0)
    assert result.data == {"name": "vectors", "fingerprint": "vectors-3", "rows": 160}
    assert "val/ppl" not in rows[0]
    assert [row.keys() for row in result.evals["slope"]["weights"]] == [{"weight"}] * 3
    assert not (made.path / "tokenizer.json").exists()
    shown = capsys.readouterr().out
    assert "model    4 parameters\n         line" in shown
    assert "data     vectors: 160 rows" in shown
    assert "samples/s" in shown


@pytest.mark.slow
def test_a_resumed_run_ends_as_one_that_was_not_stopped():
    whole, part = train(), train()
    assert run([f"ckpt={part.path}/checkpoints/step-00000004.ckpt"]) == 0
    assert newest().path == part.path
    assert [row["step"] for row in csv.DictReader((part.path / "metrics.csv").open())] == ["2", "4", "6"]
    for name, value in weights(whole.path, 6).items():
        assert torch.equal(weights(part.path, 6)[name], value)


def test_the_part_before_the_stop_differs_from_the_end():
    made = train()
    assert not torch.equal(*(weights(made.path, step)["net.line.weight"] for step in (4, 6)))


def test_an_eval_that_needs_tokens_is_refused_before_training(capsys):
    assert main(["train", *WORDS]) == 2
    told = capsys.readouterr().err
    assert "evals.lengths: eval=lengths measures a language model, and Vectors has no tokens; use evals=none" in told
    assert not Path("outputs").exists()


def test_data_that_lacks_what_a_run_needs_is_named(capsys):
    Path("conf/data/vectors.yaml").write_text("# Nothing.\n_target_: tests.training.test_other_task.Bare\ninputs: 3\n")
    assert main(["train", *WORDS, *ENDS]) == 2
    told = capsys.readouterr().err
    assert "data: Bare lacks batches_per_epoch, check_state, fingerprint, which a run needs to resume" in told


class Bare(LightningDataModule):
    """A data module that cannot say what it is."""

    def __init__(self, *, inputs: int) -> None:
        super().__init__()
        self.inputs = inputs

    def summary(self) -> dict[str, str]:
        return {"name": "bare"}


def test_data_that_is_no_data_module_is_named():
    with pytest.raises(ConfigError, match="data: dict is no LightningDataModule; derive it from one"):
        require_run_data({})
