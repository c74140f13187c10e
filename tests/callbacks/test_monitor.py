"""Logged numbers, and what a person sees of them."""

from __future__ import annotations

import re

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers.logger import Logger
from tests.helpers import FewRows, Given, Rows, task, trainer

from aptlab.callbacks.monitor import Monitor
from aptlab.callbacks.progress import TrainProgress, format_fresh_numbers, format_latest_numbers
from aptlab.objectives import IGNORE, compute_token_nll


class Kept(Logger):
    """Keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[int, dict[str, float]]] = []

    name = version = "kept"

    def log_hyperparams(self, *args, **kwargs) -> None:
        raise AssertionError("nothing should log hyper-parameters through Lightning")

    def log_metrics(self, metrics, step=None) -> None:
        self.rows.append((step, metrics))


def fitted(**settings):
    logger, monitor = Kept(), Monitor(every=2)
    run = trainer(logger=logger, callbacks=[monitor], **settings)
    module = task()
    run.fit(module, Rows(), FewRows())
    return logger, monitor, module


def test_numbers_come_every_second_step_and_after_validation():
    logger, _, _ = fitted(max_steps=6)
    assert [step for step, row in logger.rows if "train/loss" in row] == [2, 4, 6]
    assert [step for step, row in logger.rows if "val/loss" in row] == [3, 6]


def test_the_logged_loss_is_the_mean_since_the_last_line():
    logger, *_ = fitted(max_steps=2, val_check_interval=10)
    fresh, losses = task(), []
    optimizer = fresh.optim.make(fresh.net)
    for number in range(2):
        optimizer.param_groups[0]["lr"] = optimizer.param_groups[1]["lr"] = 1e-2 * fresh.schedule.factor(number, 2)
        loss = compute_token_nll(fresh(Rows().row(number)).logits, Rows().row(number)["targets"])
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert logger.rows[0][1]["train/loss"] == pytest.approx(sum(losses) / 2, rel=1e-5)


def test_accumulated_batches_count_whole_and_one_line_comes_per_step():
    logger, monitor, _ = fitted(max_steps=2, accumulate_grad_batches=3, val_check_interval=100)
    ((step, row),) = [item for item in logger.rows if "train/loss" in item[1]]
    assert step == 2
    assert row["train/loss"] == pytest.approx(4.11, abs=0.3)  # ln 61, not a third of it
    assert monitor.tokens == 2 * 3 * 4 * 16


def test_tokens_and_seconds_survive_a_checkpoint():
    _, monitor, _ = fitted(max_steps=4)
    other = Monitor(every=2)
    other.load_state_dict(monitor.state_dict())
    assert (other.tokens, other.latest) == (4 * 4 * 16, monitor.latest)
    assert other.seconds == monitor.seconds > 0
    assert other.state_dict() == monitor.state_dict()
    torch.save(monitor.state_dict(), "state.pt")
    assert torch.load("state.pt", weights_only=True)["tokens"] == 4 * 4 * 16


@pytest.mark.parametrize(("every", "lines"), [(10, 20), (3, 6)])
def test_a_plain_line_has_the_loss_since_the_last_logged_one(capsys, every, lines):
    """Between two logged lines too: none is without a loss, and none repeats an older one."""
    run = trainer(max_steps=6, callbacks=[Monitor(every=every), TrainProgress(lines=lines)], val_check_interval=100)
    run.fit(task(), Rows(), FewRows())
    shown = [line for line in capsys.readouterr().out.splitlines() if "tok/s" in line]
    assert [line.split()[1] for line in shown] == [f"{step}/6" for step in range(1, 7)]
    losses = [float(re.search(r"loss ([\d.]+)", line)[1]) for line in shown]
    assert losses[0] != losses[1]
    expected, fresh = [], task()
    optimizer = fresh.optim.make(fresh.net)
    for number in range(2):
        optimizer.param_groups[0]["lr"] = optimizer.param_groups[1]["lr"] = 1e-2 * fresh.schedule.factor(number, 6)
        loss = compute_token_nll(fresh(Rows().row(number)).logits, Rows().row(number)["targets"])
        expected.append(loss.item())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[:2] == pytest.approx([expected[0], sum(expected) / 2], abs=1e-3)


def test_a_number_of_an_earlier_step_is_shown_with_its_step():
    monitor = Monitor()
    monitor.latest, monitor.logged, monitor.validated = {"train/loss": 2.0, "val/loss": 3.0}, 20, 10
    assert format_latest_numbers(monitor, 20) == "loss 2.000  val 3.000 (step 10)"
    assert format_latest_numbers(monitor, 25) == "loss 2.000 (step 20)  val 3.000 (step 10)"
    assert format_latest_numbers(Monitor(), 25) == ""


def test_several_ranks_wait_for_the_line_that_is_gathered():
    monitor = Monitor()
    monitor._sums, monitor._targets = {"loss": torch.tensor(4.0)}, torch.tensor(2)
    monitor.latest, monitor.logged = {"train/loss": 2.0}, 20
    assert format_fresh_numbers(monitor, 20, alone=False) == "loss 2.000"
    assert format_fresh_numbers(monitor, 21, alone=False) is None
    assert format_fresh_numbers(monitor, 21, alone=True).startswith("loss 2.000  0 tok/s")


def test_the_speed_of_a_step_leaves_the_validation_before_it_out(monkeypatch):
    """A clock that goes on one second a step and a thousand in each validation."""
    now = [0.0]
    monkeypatch.setattr("aptlab.callbacks.monitor.time.perf_counter", lambda: now[0])

    class Clock(Callback):
        def on_train_batch_start(self, *given) -> None:
            now[0] += 1.0

        def on_validation_batch_start(self, *given) -> None:
            now[0] += 1000.0

    logger, monitor = Kept(), Monitor(every=1)
    run = trainer(logger=logger, callbacks=[monitor, Clock()], val_check_interval=2)
    run.fit(task(), Rows(), FewRows())
    speeds = [row["tokens_per_second"] for _, row in logger.rows if "train/loss" in row]
    assert speeds == [4 * 16] * 6
    assert monitor.seconds == 6


def test_plain_lines_say_step_loss_speed_and_eta(capsys):
    run = trainer(max_steps=6, callbacks=[Monitor(every=1), TrainProgress(lines=3)])
    run.fit(task(), Rows(), FewRows())
    lines = capsys.readouterr().out.splitlines()
    steps = [line for line in lines if re.fullmatch(r"step \d/6  loss [\d.]+.*  [\d,]+ tok/s  ETA \d+:\d\d", line)]
    assert [line.split()[1] for line in steps] == ["2/6", "4/6", "6/6"]
    assert sum("validation: loss" in line and "bits per byte" in line for line in lines) == 2


def test_the_rate_is_the_one_that_the_step_was_taken_with():
    logger, _, module = fitted(max_steps=6)
    rates = {step: row["lr"] for step, row in logger.rows if "lr" in row}
    assert rates == pytest.approx({step: 1e-2 * module.schedule.factor(step - 1, 6) for step in (2, 4, 6)})


def test_micro_batches_weigh_as_many_targets_as_they_have():
    """One batch of four has a single target: three whole ones and it are no mean of four means."""
    batches = [Rows().row(number) for number in range(4)]
    batches[1]["targets"] = torch.full_like(batches[1]["targets"], IGNORE)
    batches[1]["targets"][0, 0] = 5
    batches[2]["targets"] = torch.full_like(batches[2]["targets"], IGNORE)
    logger, monitor = Kept(), Monitor(every=1)
    run = trainer(logger=logger, callbacks=[monitor], max_steps=1, accumulate_grad_batches=4, val_check_interval=400)
    module = task()
    with torch.no_grad():
        sums = [float(compute_token_nll(module(row).logits, row["targets"], "sum")) for row in batches]
    run.fit(module, Given(batches), FewRows())
    ((_, row),) = [item for item in logger.rows if "train/loss" in item[1]]
    assert row["train/loss"] == pytest.approx(sum(sums) / (64 + 1 + 0 + 64), rel=1e-5)


def test_a_line_of_an_older_checkpoint_goes_on():
    """Sums over micro-batches, without their targets."""
    monitor = Monitor(every=4)
    line = {"loss": 9.0, "parts": {"aux/balance": 3.0}, "batches": 3, "tokens": 192, "seconds": 1.0}
    monitor.load_state_dict({"tokens": 0, "seconds": 0.0, "latest": {}, "validated": None, "line": line})
    found = monitor.state_dict()["line"]
    assert found["targets"] == 192
    assert {name: total / 192 for name, total in found["sums"].items()} == {"loss": 3.0, "aux/balance": 1.0}
    empty = {"loss": None, "parts": {}, "batches": 0, "tokens": 0, "seconds": 0.0}
    monitor.load_state_dict({"tokens": 0, "seconds": 0.0, "latest": {}, "validated": None, "line": empty})
    assert monitor.state_dict()["line"] == {"sums": {}, "targets": 0, "tokens": 0, "seconds": 0.0}
