"""Gradients and logits that are changed with a fused optimizer on a CUDA device, where the verdict stays."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from tests.callbacks.test_guard import Poison, States, equal
from tests.helpers import Rows, task, trainer

from aptlab.callbacks.gradients import AGC, AdaGC, LowRankGradients, ZClip
from aptlab.callbacks.guard import NonFiniteGuard
from aptlab.callbacks.qk_clip import QKClip

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]
EVERY = {
    "adagc": partial(AdaGC, warmup=2),
    "zclip": partial(ZClip, warmup=2),
    "agc": AGC,
    "low_rank": partial(LowRankGradients, rank=4),
    "qk_clip": partial(QKClip, tau=0.01),
}


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
@pytest.mark.parametrize("name", EVERY)
def test_a_bad_step_changes_no_bit_and_no_state(name, precision):
    rule, states = EVERY[name](), States()
    given = {"accelerator": "cuda", "limit_val_batches": 0, "precision": precision}
    callbacks = [Poison(3), NonFiniteGuard(), rule, states]
    trainer(max_steps=6, callbacks=callbacks, **given).fit(task(), Rows())
    assert states.skipped == [False, False, False, True, False, False]
    assert equal(states.states[3], states.states[2])
    assert not equal(states.states[4], states.states[3])
    kept = [value for value in rule.state_dict().values() if isinstance(value, torch.Tensor)]
    kept += [v for value in rule.state_dict().values() if isinstance(value, dict) for v in value.values()]
    assert all(value.isfinite().all() for value in kept)


@pytest.mark.parametrize("name", [name for name in EVERY if name != "qk_clip"])
def test_after_the_first_step_nothing_waits_for_the_device(name):
    """All but the decomposition of low_rank, which waits by itself."""
    rule = EVERY[name](every=100) if name != "low_rank" else EVERY[name](log_every=100)

    class Watched(type(rule)):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            torch.cuda.set_sync_debug_mode("error" if self.steps > 2 and name != "low_rank" else "default")
            try:
                super().on_before_optimizer_step(trainer, pl_module, optimizer)
            finally:
                torch.cuda.set_sync_debug_mode("default")

    rule.__class__ = Watched
    given = {"accelerator": "cuda", "limit_val_batches": 0, "precision": "bf16-mixed"}
    trainer(max_steps=6, callbacks=[NonFiniteGuard(), rule], **given).fit(task(), Rows())
    assert rule.steps == 6
