"""The guard with a fused optimizer on a CUDA device: the kernel skips, and no step waits."""

from __future__ import annotations

import logging

import pytest
import torch
from lightning.pytorch import Callback
from tests.callbacks.test_guard import Poison, States, equal
from tests.helpers import Rows, task, trainer

from aptlab.callbacks.guard import NonFiniteGuard, supports_found_inf
from aptlab.errors import TrainingError

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]


class Unsynced(NonFiniteGuard):
    """Raises if the guard's own work in a step makes the host wait."""

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        torch.cuda.set_sync_debug_mode("error")
        try:
            super().on_before_optimizer_step(trainer, pl_module, optimizer)
        finally:
            torch.cuda.set_sync_debug_mode("default")


class Fused(Callback):
    """Whether the optimizer skips by itself, seen while it is on the device."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.seen = supports_found_inf(trainer.optimizers[0])


def fit(poison, guard, *extra, steps=6, **settings):
    states = States()
    given = {"accelerator": "cuda", "limit_val_batches": 0, "gradient_clip_val": 1.0, "precision": "bf16-mixed"}
    run = trainer(max_steps=steps, callbacks=[poison, guard, states, *extra], **(given | settings))
    run.fit(task(), Rows())
    return states


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
@pytest.mark.parametrize("what", ["gradient", "loss"])
def test_a_bad_step_changes_no_bit(precision, what):
    guard, fused = NonFiniteGuard(), Fused()
    states = fit(Poison(3, what=what), guard, fused, precision=precision)
    assert states.skipped == [False, False, False, True, False, False]
    assert equal(states.states[3], states.states[2])
    assert not equal(states.states[4], states.states[3])
    assert guard.skipped_steps == 1
    assert fused.seen == (precision != "16-mixed")


def test_no_step_waits_and_the_flags_are_read_every_few_steps(caplog):
    guard = Unsynced(every=4)
    with caplog.at_level(logging.WARNING, "aptlab"):
        fit(Poison(1), guard, steps=6)
    assert guard.skipped_steps == 1
    assert "step 2 skipped: the gradient is not finite; samples 4, 5, 6, 7" in caplog.text


def test_the_very_first_step_can_be_bad():
    states = fit(Poison(0), NonFiniteGuard(), steps=2)
    fresh = [weight.detach().cuda() for weight in task().parameters()]
    assert equal([tensor.cuda() for tensor in states.states[0][: len(fresh)]], fresh)


def test_patience_is_kept_up_to_one_interval_late():
    guard = NonFiniteGuard(patience=3, every=4)
    with pytest.raises(TrainingError, match="3 steps in a row had a loss or gradient that is not finite"):
        fit(Poison(2, count=99), guard, steps=30)
