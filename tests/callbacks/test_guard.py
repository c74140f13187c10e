"""The guard against numbers that are not finite: every bit stays, the samples are named, patience ends."""

from __future__ import annotations

import logging

import pytest
import torch
from lightning.pytorch import Callback
from tests.helpers import Rows, task, trainer

from aptlab.callbacks.guard import NonFiniteGuard, format_sample_ids, supports_found_inf
from aptlab.callbacks.monitor import Monitor
from aptlab.errors import ConfigError, TrainingError


class Poison(Callback):
    """Make the gradient or the loss of micro-batch `at` (and the `count` - 1 after it) NaN or infinite."""

    def __init__(self, at, count=1, what="gradient", value=float("nan")):
        self.at, self.count, self.what, self.value = at, count, what, value

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.now = self.at <= batch_idx < self.at + self.count

    def on_before_backward(self, trainer, pl_module, loss):
        if self.now and self.what == "loss":
            loss.data.fill_(self.value)

    def on_after_backward(self, trainer, pl_module):
        if self.now and self.what == "gradient":
            next(pl_module.parameters()).grad[0] = self.value


class States(Callback):
    """Weights, optimizer state and `skipped` after every optimizer step."""

    def __init__(self):
        self.states, self.skipped, self.norms = [], [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step <= len(self.states):
            return
        tensors = [weight.detach().clone() for weight in pl_module.parameters()]
        for state in trainer.optimizers[0].state_dict()["state"].values():
            tensors += [value.clone() for value in state.values()]
        self.states.append(tensors)
        self.skipped.append(bool(pl_module.step_state.skipped))
        self.norms.append(float(pl_module.step_state.grad_norm))


def fit(poison, guard=None, steps=6, **settings):
    guard, states, monitor = guard or NonFiniteGuard(), States(), Monitor(every=1)
    run = trainer(max_steps=steps, limit_val_batches=0, callbacks=[monitor, poison, guard, states], **settings)
    run.fit(task(), Rows())
    return guard, states, monitor


def equal(one, other):
    return len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other))


@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize(
    ("what", "value"), [("gradient", float("nan")), ("gradient", float("inf")), ("loss", float("nan"))]
)
def test_a_bad_step_changes_no_bit_and_the_next_one_trains(what, value, precision, clip):
    guard, states, monitor = fit(Poison(3, what=what, value=value), precision=precision, gradient_clip_val=clip)
    assert states.skipped == [False, False, False, True, False, False]
    assert equal(states.states[3], states.states[2])
    assert not equal(states.states[4], states.states[3])
    assert all(torch.isfinite(tensor).all() for tensor in states.states[-1])
    assert guard.skipped_steps == monitor.latest["skipped_steps"] == 1


def test_the_very_first_step_can_be_bad():
    guard, states, _ = fit(Poison(0))
    assert states.skipped[0]
    assert guard.skipped_steps == 1
    fresh = list(task().parameters())
    assert equal(states.states[0][: len(fresh)], [weight.detach() for weight in fresh])


def test_without_the_guard_the_weights_are_lost():
    states = States()
    run = trainer(limit_val_batches=0, gradient_clip_val=1.0, callbacks=[Poison(3), states])
    run.fit(task(), Rows())
    assert not all(torch.isfinite(tensor).all() for tensor in states.states[-1])


def test_one_bad_micro_batch_of_a_window_skips_the_window_and_all_its_samples_are_named(caplog):
    with caplog.at_level(logging.WARNING, "aptlab"):
        _, states, _ = fit(Poison(4), accumulate_grad_batches=3, steps=3)
    assert states.skipped == [False, True, False]
    assert equal(states.states[1], states.states[0])
    samples = ", ".join(str(number) for number in range(12, 24))
    assert f"step 2 skipped: the gradient is not finite; samples {samples}" in caplog.text


def test_patience_ends_the_run_and_says_what_to_do(caplog):
    guard = NonFiniteGuard(patience=3)
    with pytest.raises(TrainingError, match=r"3 steps in a row had a loss or gradient that is not finite, the last one "
                       r"step 5 with samples 16, 17, 18, 19; of the losses the last finite one was 4\.\d+.*the weights "
                       r"are those before; no checkpoint is saved; start with a lower rate") as caught:  # fmt: skip
        fit(Poison(2, count=4, what="loss"), guard, steps=9)
    assert caught.value.exit_code == 1
    assert guard.skipped_steps == 3
    assert "step 4 skipped: the loss (nan) is not finite; samples 12, 13, 14, 15" in caplog.text


def test_patience_counts_steps_in_a_row_only():
    class EverySecond(Poison):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            self.now = batch_idx % 2 == 1

    guard, _, _ = fit(EverySecond(0), NonFiniteGuard(patience=2), steps=8)
    assert guard.skipped_steps == 4


def test_counts_survive_a_checkpoint():
    guard, _, _ = fit(Poison(5), NonFiniteGuard(patience=3))
    state = guard.state_dict()
    assert state["skipped_steps"] == state["row"] == 1
    other = NonFiniteGuard(patience=3)
    other.load_state_dict(state)
    assert other.state_dict() == state


def test_the_norm_is_that_of_the_gradient_before_clipping():
    _, states, _ = fit(Poison(99), gradient_clip_val=1e-3)
    _, free, _ = fit(Poison(99), steps=1)
    assert states.norms[0] == free.norms[0]
    fresh = task()
    from aptlab.objectives import compute_token_nll

    compute_token_nll(fresh(Rows().row(0)).logits, Rows().row(0)["targets"]).backward()
    expected = torch.stack([weight.grad.norm() for weight in fresh.parameters()]).norm()
    assert states.norms[0] == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("clip", [0.5, 1e-3])
def test_clipping_with_the_measured_norm_equals_torch(clip):
    _, states, _ = fit(Poison(99), gradient_clip_val=clip, steps=1)
    from aptlab.objectives import compute_token_nll

    fresh = task()
    optimizer = fresh.optim.make(fresh.net)
    for group in optimizer.param_groups:
        group["lr"] *= fresh.schedule.factor(0, 1)
    compute_token_nll(fresh(Rows().row(0)).logits, Rows().row(0)["targets"]).backward()
    torch.nn.utils.clip_grad_norm_(fresh.parameters(), clip)
    optimizer.step()
    assert equal(states.states[0][: len(list(fresh.parameters()))], [weight.detach() for weight in fresh.parameters()])


def test_only_fused_optimizers_on_cuda_skip_by_themselves():
    weights = [torch.nn.Parameter(torch.zeros(2))]
    assert not supports_found_inf(torch.optim.AdamW(weights, fused=True))
    assert not supports_found_inf(torch.optim.SGD(weights, lr=0.1))


def test_long_lists_of_samples_are_cut():
    assert format_sample_ids([torch.arange(2), torch.arange(2, 4)]) == "0, 1, 2, 3"
    assert format_sample_ids([torch.arange(40)]).endswith("31 …")
    assert format_sample_ids([]) == "unknown"


@pytest.mark.parametrize("name", ["patience", "every"])
def test_limits(name):
    with pytest.raises(ConfigError, match=rf"^{name} must be a finite number >= 1, got 0"):
        NonFiniteGuard(**{name: 0})
