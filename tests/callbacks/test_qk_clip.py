"""QK-clip: the largest logit of each head, and what becomes of its weights."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from lightning.pytorch import Callback
from tests.helpers import SHAPE, Rows, decoder, task, trainer

from aptlab.callbacks.guard import NonFiniteGuard
from aptlab.callbacks.qk_clip import QKClip, scale_heads
from aptlab.errors import ConfigError, TrainingError
from aptlab.nn.attention import FullAttention, LinearAttention
from aptlab.nn.attention.largest import MAX_LOGITS
from aptlab.nn.positions.layer import LayerPositions
from aptlab.nn.shape import Shape
from aptlab.nn.window import SlidingWindow

GROUPED = Shape(dim=32, depth=2, heads=4, kv_heads=2, hidden=48)


def measure(net, tokens, segments=None):
    """What every layer says of its logits, [L, H]."""
    for block in net.blocks:
        block.attention.measures_logits = True
    traces = net.train()(tokens, segments=segments).traces
    return torch.stack([traces[f"{i}/attention/qk"][MAX_LOGITS] for i in range(len(net.blocks))])


def see_heads(net, tokens):
    """Queries and keys of the first layer, without a rotation, [B, H, T, D] each."""
    block = net.blocks[0]
    heads = block.attention.split_heads(block.attention_norm(net.embed(tokens)))
    q, k, _ = heads.split([block.attention.heads, block.attention.kv_heads, block.attention.kv_heads], dim=1)
    return q, k


@torch.no_grad()
@pytest.mark.parametrize("window", [None, SlidingWindow(size=3, full_every=None)])
def test_the_largest_logit_is_that_of_the_seen_pairs(window):
    net = decoder(shape=GROUPED, attention=partial(FullAttention, window=window))
    net.blocks[0].attention.bind_positions(LayerPositions())  # without a rotation
    tokens = torch.arange(24).view(2, 12)
    segments = torch.tensor([[1] * 5 + [2] * 7, [1] * 12])
    q, k = see_heads(net, tokens)
    expected = []
    for h in range(4):
        seen = [
            float(q[b, h, i] @ k[b, h // 2, j]) / math.sqrt(8)
            for b in range(2)
            for i in range(12)
            for j in range(i + 1)
            if segments[b, i] == segments[b, j] and (window is None or i - j < 3)
        ]
        expected.append(max(seen))
    torch.testing.assert_close(measure(net, tokens, segments)[0], torch.tensor(expected))


@pytest.mark.parametrize("shape", [SHAPE, GROUPED])
@pytest.mark.parametrize("bias", [False, "qkv"])
def test_every_heads_logits_take_its_own_factor(shape, bias):
    net = decoder(shape=shape, attention=partial(FullAttention, bias=bias))
    layer, tokens = net.blocks[0].attention, torch.arange(12).view(1, 12)
    if bias:
        torch.nn.init.normal_(layer.qkv.bias)
    factors = torch.tensor([0.5, 1.0, 0.25, 0.8])[: shape.heads]
    before, v_before = measure(net, tokens)[0], layer.qkv.weight[-shape.dim // 4 :].clone()
    keys_before = see_heads(net, tokens)[1]
    scale_heads(layer, factors, 0.5)
    torch.testing.assert_close(measure(net, tokens)[0], factors * before)
    assert torch.equal(layer.qkv.weight[-shape.dim // 4 :], v_before)
    if shape is SHAPE:  # keys of their own: both take the root, as published
        torch.testing.assert_close(see_heads(net, tokens)[1][:, 0], keys_before[:, 0] * math.sqrt(0.5))


class Poison(Callback):
    def on_after_backward(self, trainer, pl_module):
        if trainer.global_step == 1:
            next(pl_module.parameters()).grad[0] = torch.nan


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_run_ends_with_logits_near_tau_and_a_skipped_step_changes_nothing(accumulate):
    run, free = task(), task()
    for module, callbacks in ((run, [QKClip(tau=0.01)]), (free, [QKClip(tau=None)])):
        given = trainer(max_steps=5, limit_val_batches=0, accumulate_grad_batches=accumulate, callbacks=callbacks)
        given.fit(module, Rows())
    tokens = Rows().row(0)["tokens"]
    clipped, unclipped = measure(run.net, tokens).max(), measure(free.net, tokens).max()
    assert clipped < 0.5 * unclipped

    before: list[torch.Tensor] = []

    class See(Callback):
        def on_train_batch_end(self, trainer, pl_module, *rest):
            before.append(pl_module.net.blocks[0].attention.qkv.weight.detach().clone())

    module = task()
    callbacks = [Poison(), NonFiniteGuard(), QKClip(tau=0.01), See()]
    trainer(max_steps=2, limit_val_batches=0, callbacks=callbacks).fit(module, Rows())
    assert torch.equal(before[0], before[1])
    assert not any(block.attention.measures_logits for block in module.net.blocks)


def test_a_largest_logit_below_tau_changes_no_bit():
    runs = []
    for tau in (None, 1e6):
        module = task()
        trainer(max_steps=3, limit_val_batches=0, callbacks=[QKClip(tau=tau)]).fit(module, Rows())
        runs.append(list(module.parameters()))
    plain = task()
    trainer(max_steps=3, limit_val_batches=0).fit(plain, Rows())
    for one, two, three in zip(*runs, plain.parameters(), strict=True):
        assert torch.equal(one, two)
        assert torch.equal(one, three)


@pytest.mark.parametrize(
    ("attention", "tau", "message"),
    [
        (LinearAttention, 1.0, r"qk_clip needs layers with logits"),
        (partial(FullAttention, qk_norm=True), 1.0, r"layer 0 normalises queries and keys.*qk_norm=false"),
    ],
)
def test_what_cannot_be_clipped_is_told(attention, tau, message):
    run = trainer(max_steps=1, limit_val_batches=0, callbacks=[QKClip(tau=tau)])
    with pytest.raises(ConfigError, match=message):
        run.fit(task(attention=attention), Rows())


def test_logits_that_cannot_be_told_apart_or_are_not_given_are_refused():
    module = task()
    module.net.blocks[1] = decoder(seed=1).blocks[0]
    run = trainer(max_steps=1, limit_val_batches=0, callbacks=[QKClip()])
    with pytest.raises(ConfigError, match="two layers of this network tell of their logits under one name"):
        run.fit(module, Rows())
    rule, mute = QKClip(), task()
    rule.on_fit_start(run, mute)
    with pytest.raises(TrainingError, match=r"gave no logits of 0/attention/qk; the task's training_step must set"):
        rule.on_before_backward(run, mute, torch.zeros(()))


@pytest.mark.parametrize(("given", "message"), [({"tau": 0.0}, "^tau must be"), ({"alpha": 2.0}, "^alpha must be")])
def test_numbers_outside_of_their_limits_are_named(given, message):
    with pytest.raises(ConfigError, match=message):
        QKClip(**given)
