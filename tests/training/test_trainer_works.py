"""Every parameter of Lightning's Trainer does here what Lightning says of it, or is refused with the way out."""

from __future__ import annotations

import csv
import inspect
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch import Callback

from aptlab.cli import main
from aptlab.training import run as running
from aptlab.training.trainer_keys import HARMLESS, OWNED, REFUSED, WORKS, find_trainer_problems
from tests.commands.small_run import newest, words

WHOLE = {"limit_train_batches": 3, "overfit_batches": 2, "min_epochs": 1, "reload_dataloaders_every_n_epochs": 1}
WHOLE |= {"limit_test_batches": 2, "limit_predict_batches": 2, "enable_autolog_hparams": False, "model_registry": "x"}


def test_every_parameter_of_the_trainer_is_in_one_of_the_three_lists():
    """A new one of a later Lightning: find out what it does with a loader that has no end, then put it into a list."""
    parameters = set(inspect.signature(lightning.Trainer.__init__).parameters) - {"self"}
    lists = [set(OWNED), set(REFUSED), set(WORKS)]
    assert set.union(*lists) == parameters
    assert sum(map(len, lists)) == len(parameters)
    assert set(HARMLESS) <= set(REFUSED) == set(WHOLE)


@pytest.mark.parametrize("key", REFUSED)
def test_a_parameter_that_would_mean_something_else_is_refused_with_the_way_out(key):
    (problem,) = find_trainer_problems({"trainer": {key: WHOLE[key]}})
    reason, way = REFUSED[key]
    assert problem == f"trainer.{key}: {WHOLE[key]!r} would not do what it says: {reason}; use {way}"
    for value in (None, *map(eval, HARMLESS.get(key, ()))):
        assert find_trainer_problems({"trainer": {key: value}}) == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"limit_val_batches": 1.5}, "limit_val_batches: 1.5 is neither a number of batches"),
        ({"limit_val_batches": -1}, "limit_val_batches: -1 is neither"),
        ({"limit_val_batches": True}, "limit_val_batches: True is neither"),
        (
            {"num_sanity_val_steps": -2},
            "num_sanity_val_steps: must be a finite number >= -1, got -2; use 0 for none, -1 for all",
        ),
        ({"gradient_clip_algorithm": "max"}, "gradient_clip_algorithm: 'max' is no way to clip; allowed: norm, value"),
        ({"max_steps": 4, "min_steps": 5}, "min_steps=5 is more than trainer.max_steps=4, which ends the run"),
    ],
)
def test_values_that_lightning_would_refuse_late_are_told_at_once(values, message):
    (problem,) = find_trainer_problems({"trainer": values})
    assert problem.startswith(f"trainer.{message}")


def test_a_share_of_the_validation_that_is_no_batch_is_told_before_the_run_has_a_folder(capsys):
    assert main(["train", *words("evals=none", "+trainer.limit_val_batches=0.1")]) == 2
    assert "trainer.limit_val_batches=0.1 of 2 validation batches is not one; use a larger" in capsys.readouterr().err
    assert not Path("outputs").exists()


class Seen(Callback):
    """What a run did: gradients after clipping, validation batches, sanity batches, threads of autograd."""

    def __init__(self) -> None:
        self.found: dict[str, Any] = {"val": 0, "sanity": 0, "micro": 0}

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.found["micro"] += 1
        self.found["anomaly"] = torch.is_anomaly_enabled()
        self.found["deterministic"] = torch.are_deterministic_algorithms_enabled()
        self.found["benchmark"] = torch.backends.cudnn.benchmark

    def on_validation_batch_end(self, trainer, pl_module, *rest):
        self.found["sanity" if trainer.sanity_checking else "val"] += 1
        self.found["inference"] = torch.is_inference_mode_enabled()

    def on_before_zero_grad(self, trainer, pl_module, optimizer):
        grads = [weight.grad for weight in pl_module.parameters() if weight.grad is not None]
        if grads:
            norm = float(torch.nn.utils.get_total_norm(grads))
            self.found["norm"] = max(self.found.get("norm", 0), norm)
            self.found["peak"] = max(self.found.get("peak", 0), *(float(grad.abs().max()) for grad in grads))

    def on_train_batch_end(self, trainer, pl_module, *rest):
        trainer.should_stop = self.found.get("stop", False)


SEEN: list[Seen] = []


class Watching(Seen):
    """The same, found again by the test."""

    def __init__(self, *, stop: bool = False) -> None:
        super().__init__()
        self.found["stop"] = stop
        SEEN.append(self)


def watched(monkeypatch, *overrides: str) -> dict[str, Any]:
    """A run of four steps with these keys; what was seen, with its steps, and the trainer."""
    monkeypatch.setenv("APTLAB_TRUST", "tests")
    Path("conf/callbacks").mkdir(parents=True, exist_ok=True)
    option = "# Watch.\nwatch:\n  _target_: tests.training.test_trainer_works.Watching\n  stop: false\n"
    Path("conf/callbacks/watch.yaml").write_text(option)
    fit = running.fit_run
    monkeypatch.setattr(
        running, "fit_run", lambda run, resume: (SEEN[-1].found.update(trainer=run.trainer), fit(run, resume))[1]
    )
    base = words("evals=none", "trainer.max_steps=4", "validate.every=2", "callbacks=[default,watch]")
    before = torch.backends.cudnn.benchmark
    try:
        assert main(["train", *base, *overrides]) == 0
    finally:
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.benchmark = before
    return {**SEEN[-1].found, "steps": newest().result.steps}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ((), {"steps": 4, "micro": 4, "val": 4, "sanity": 2, "anomaly": False}),
        (("+trainer.limit_val_batches=1",), {"val": 2, "sanity": 1}),
        (("+trainer.limit_val_batches=0.5",), {"val": 2}),
        (("+trainer.limit_val_batches=0",), {"val": 0, "sanity": 0}),
        (("+trainer.num_sanity_val_steps=0",), {"sanity": 0, "val": 4}),
        (("+trainer.num_sanity_val_steps=-1",), {"sanity": 2}),
        (("trainer.accumulate_grad_batches=3",), {"steps": 4, "micro": 12, "val": 4}),
        (("callbacks.watch.stop=true", "+trainer.min_steps=3"), {"steps": 3}),
        (("callbacks.watch.stop=true",), {"steps": 1}),
        # Lightning validates inside of a fit without it, and the last weights apart from the fit.
        (("validate.every=3",), {"val": 4, "inference": True}),
        (("validate.every=3", "+trainer.inference_mode=false"), {"val": 4, "inference": False}),
        (("+trainer.detect_anomaly=true",), {"anomaly": True}),
        (("+trainer.deterministic=true",), {"deterministic": True}),
        (("+trainer.benchmark=true",), {"benchmark": True}),
        (("+trainer.max_epochs=1", "trainer.max_steps=3"), {"steps": 3}),
    ],
)
def test_a_parameter_that_works_does_what_lightning_says(monkeypatch, overrides, expected):
    seen = watched(monkeypatch, *overrides)
    assert {key: seen[key] for key in expected} == expected


def test_a_time_ends_the_run(monkeypatch):
    seen = watched(monkeypatch, "+trainer.max_time='00:00:00:01'", "trainer.max_steps=1000000", "validate.every=null")
    assert 0 < seen["steps"] < 1_000_000


@pytest.mark.slow
def test_gradients_are_clipped_by_norm_or_by_value(monkeypatch):
    free = watched(monkeypatch, "trainer.gradient_clip_val=null")
    assert free["norm"] > 0.02
    assert watched(monkeypatch, "trainer.gradient_clip_val=0.02")["norm"] == pytest.approx(0.02, rel=1e-3)
    algorithm = ("trainer.gradient_clip_val=0.001", "+trainer.gradient_clip_algorithm=value")
    assert watched(monkeypatch, *algorithm)["peak"] == pytest.approx(0.001, rel=1e-6)


def test_a_profiler_and_the_logged_lines_come_as_asked(monkeypatch):
    seen = watched(
        monkeypatch, "+trainer.profiler=simple", "+trainer.sync_batchnorm=true", "trainer.log_every_n_steps=2"
    )
    assert type(seen["trainer"].profiler).__name__ == "SimpleProfiler"
    assert seen["trainer"]._accelerator_connector._layer_sync is not None
    rows = csv.DictReader((newest().path / "metrics.csv").open())
    assert [row["step"] for row in rows if row["train/loss"]] == ["2", "4"]
