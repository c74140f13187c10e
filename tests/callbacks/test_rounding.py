"""Weights in bfloat16 that a step cannot move are told, with the share that was measured."""

from __future__ import annotations

import logging

import pytest
import torch
from tests.helpers import FewRows, Rows, decoder, trainer
from torch import nn

from aptlab.callbacks.rounding import RoundedSteps, measure_moved_share
from aptlab.errors import ConfigError
from aptlab.optim import AdamW, Cosine
from aptlab.tasks import LanguageTask


def told(caplog, lr: float, precision: str) -> list[str]:
    task = LanguageTask(decoder(), optim=AdamW(lr=lr), schedule=Cosine())
    with caplog.at_level(logging.WARNING, "aptlab"):
        trainer(max_steps=3, precision=precision, callbacks=[RoundedSteps()]).fit(task, Rows(), FewRows())
    return [record.getMessage() for record in caplog.records if "rounded away" in record.getMessage()]


@pytest.mark.parametrize(
    ("lr", "precision", "count"),
    [(1e-5, "bf16-true", 1), (3e-3, "bf16-true", 0), (1e-5, "bf16-mixed", 0), (1e-5, "32-true", 0)],
)
def test_a_rate_that_bfloat16_cannot_hold_is_told_once(caplog, lr, precision, count):
    lines = told(caplog, lr, precision)
    assert len(lines) == count
    for line in lines:
        assert line.startswith("precision=bf16-true: a step at lr=1e-05 moves ")
        assert "use precision=bf16-mixed, which keeps the weights in float32, or a larger optim.lr" in line


def test_the_share_is_that_of_the_weights_whose_spacing_is_below_the_step():
    """A step of AdamW is lr · g/|g| at first; half of these weights have a spacing of 2^-7, half of 2^-13."""
    net = nn.Linear(64, 64, bias=False).to(torch.bfloat16)
    with torch.no_grad():
        net.weight[:32], net.weight[32:] = 1.0, 2.0**-6
    net.weight.grad = torch.ones_like(net.weight)
    net.weight.grad[0] = 0.0  # does not move in float32 either, and does not count
    before = net.weight.detach().clone()
    rule = AdamW(lr=1e-3, weight_decay=0.0)
    assert measure_moved_share(rule, net) == pytest.approx(32 / 63)
    assert measure_moved_share(AdamW(lr=1e-2, weight_decay=0.0), net) == 1.0
    assert torch.equal(net.weight, before)


def test_nothing_that_moves_has_no_share():
    net = nn.Linear(4, 4)
    net.weight.grad, net.bias.grad = torch.zeros(4, 4), torch.zeros(4)
    assert measure_moved_share(AdamW(weight_decay=0.0), net) is None


def test_a_share_that_is_none_is_refused():
    with pytest.raises(ConfigError, match=r"^share must be in \[0, 1\], got 2"):
        RoundedSteps(share=2)
