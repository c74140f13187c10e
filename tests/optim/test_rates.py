"""The rate of a step, and what an optimizer is set to, come from the configuration, also after a resume."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from aptlab.optim import AdamW, Cosine
from aptlab.optim.rates import StepRates


def trained(rule: AdamW, total: int, steps: int, *, unscaled: bool = True):
    """An optimizer, and its schedule, after some steps on a constant gradient."""
    torch.manual_seed(0)
    net = nn.Linear(3, 2)
    optimizer = rule.make(net, unscaled=unscaled)
    rates = StepRates(optimizer, lambda step: Cosine().factor(step, total))
    for _ in range(steps):
        for weight in net.parameters():
            weight.grad = torch.ones_like(weight)
        optimizer.step()
        rates.step()
    return optimizer, rates


def resumed(optimizer, rates, rule: AdamW, total: int, *, unscaled: bool = True):
    """Another rule and length on that state, loaded in Lightning's order."""
    other, schedule = trained(rule, total, 0, unscaled=unscaled)
    other.load_state_dict(optimizer.state_dict())
    schedule.load_state_dict(rates.state_dict())
    return other, schedule


def test_every_setting_is_the_new_one_and_the_moments_stay():
    optimizer, rates = trained(AdamW(), 10, 4)
    rule = AdamW(lr=1e-4, weight_decay=0.5, beta1=0.8, beta2=0.5, eps=1e-6)
    other, _ = resumed(optimizer, rates, rule, 10)
    fresh, _ = trained(rule, 10, 4)
    for group, expected in zip(other.param_groups, fresh.param_groups, strict=True):
        assert {key: value for key, value in group.items() if key != "params"} == {
            key: value for key, value in expected.items() if key != "params"
        }
    assert other.param_groups[0]["lr"] == pytest.approx(1e-4 * Cosine().factor(4, 10))
    moments = [state["exp_avg"] for state in optimizer.state_dict()["state"].values()]
    assert all(
        torch.equal(old, new["exp_avg"]) for old, new in zip(moments, other.state_dict()["state"].values(), strict=True)
    )


def test_an_extended_run_goes_on_with_the_rate_of_the_longer_schedule():
    optimizer, rates = trained(AdamW(), 20, 20)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(3e-4)
    other, schedule = resumed(optimizer, rates, AdamW(), 40)
    assert other.param_groups[0]["lr"] == 3e-3 * Cosine().factor(20, 40)
    assert other.param_groups[0]["lr"] == pytest.approx(1.707e-3, abs=1e-6)
    schedule.step()
    assert other.param_groups[0]["lr"] == 3e-3 * Cosine().factor(21, 40)


def test_a_state_of_torchs_own_scheduler_is_understood():
    optimizer, _ = trained(AdamW(), 10, 0)
    old = LambdaLR(trained(AdamW(), 10, 0)[0], lambda step: Cosine().factor(step, 10))
    old.last_epoch = 7
    rates = StepRates(optimizer, lambda step: Cosine().factor(step, 10))
    rates.load_state_dict(old.state_dict())
    assert optimizer.param_groups[0]["lr"] == 3e-3 * Cosine().factor(7, 10)
    assert rates.state_dict() == {"last_epoch": 7}


@pytest.mark.parametrize(("before", "after"), [(True, False), (False, True)])
def test_another_kernel_is_the_new_one_and_goes_on(before, after):
    """A loss scaler takes the fused kernel away: precision=16-mixed on a run that had bf16-mixed, and back."""
    optimizer, rates = trained(AdamW(), 10, 4, unscaled=before)
    other, _ = resumed(optimizer, rates, AdamW(), 10, unscaled=after)
    assert {group["fused"] for group in other.param_groups} == {after}
    assert {int(state["step"]) for state in other.state.values()} == {4}
    for group in other.param_groups:
        for weight in group["params"]:
            weight.grad = torch.ones_like(weight)
    other.step()
    assert {int(state["step"]) for state in other.state.values()} == {5}
