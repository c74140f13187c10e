"""Logged numbers, and what a person sees of them."""

from __future__ import annotations

import re

import pytest
import torch
from lightning.pytorch.loggers.logger import Logger
from tests.helpers import FewRows, Rows, task, trainer

from aptlab.callbacks.monitor import Monitor
from aptlab.callbacks.progress import TrainProgress
from aptlab.objectives import compute_token_nll


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


def test_plain_lines_say_step_loss_speed_and_eta(capsys):
    run = trainer(max_steps=6, callbacks=[Monitor(every=1), TrainProgress(lines=3)])
    run.fit(task(), Rows(), FewRows())
    lines = capsys.readouterr().out.splitlines()
    steps = [line for line in lines if re.fullmatch(r"step \d/6  loss [\d.]+.*  [\d,]+ tok/s  ETA \d+:\d\d", line)]
    assert [line.split()[1] for line in steps] == ["2/6", "4/6", "6/6"]
    assert sum("validation: loss" in line and "bits per byte" in line for line in lines) == 2
