"""A seed for every batch, from nothing but its place."""

from __future__ import annotations

import random

import torch
from lightning.pytorch import Callback
from tests.helpers import FewRows, Rows, task, trainer

from aptlab.callbacks.seeding import StatelessSeed, derive_seed, splitmix64


def test_splitmix64_gives_the_published_sequence():
    """The first outputs of the reference generator from state 1234567 (Vigna, splitmix64.c)."""
    golden = 0x9E3779B97F4A7C15
    outputs = [splitmix64((1234567 + n * golden) % 2**64) for n in range(3)]
    assert outputs == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_neighbouring_places_have_unrelated_seeds():
    places = [(s, step, micro, rank) for s in range(4) for step in range(40) for micro in range(4) for rank in range(4)]
    seeds = [derive_seed(*place) for place in places]
    assert len(set(seeds)) == len(places)
    flips = [
        (derive_seed(s, step, 0, 0) ^ derive_seed(s, step + 1, 0, 0)).bit_count()
        for s in range(4)
        for step in range(200)
    ]
    assert 30 < sum(flips) / len(flips) < 33
    assert derive_seed(1, 2, 3) != derive_seed(1, 3, 2)
    assert all(0 <= derive_seed(random.randrange(-(2**70), 2**70), 1) < 2**63 for _ in range(100))


class Draw(Callback):
    def __init__(self):
        self.train, self.val = {}, {}

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.train[trainer.global_step, batch_idx] = torch.rand(1).item()

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        self.val[trainer.global_step, batch_idx] = torch.rand(1).item()


def draws(seed, **settings):
    draw = Draw()
    run = trainer(callbacks=[StatelessSeed(seed), draw], max_steps=4, val_check_interval=2, **settings)
    run.fit(task(), Rows(), FewRows())
    return draw


def test_every_batch_draws_its_own_numbers_whatever_was_drawn_before():
    draw = draws(0)
    assert len(set(draw.train.values()) | set(draw.val.values())) == 4 + 4
    without = draws(0, limit_val_batches=0)
    assert without.train == draw.train
    assert draws(1).train != draw.train
