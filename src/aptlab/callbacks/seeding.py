"""Random numbers that need no state: every batch has a seed of its own."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

WORD = (1 << 64) - 1
TRAIN, VALIDATE = 1, 2


def splitmix64(x: int) -> int:
    """Finalizer of SplitMix64 (Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators", OOPSLA):

    z = x + 0x9E3779B97F4A7C15,  z = (z ^ z >> 30) 0xBF58476D1CE4E5B9,  z = (z ^ z >> 27) 0x94D049BB133111EB,
    z ^ z >> 31, all modulo 2^64; a bijection in which every input bit moves about half of the output bits.
    """
    z = (x + 0x9E3779B97F4A7C15) & WORD
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & WORD
    z = (z ^ z >> 27) * 0x94D049BB133111EB & WORD
    return z ^ z >> 31


def derive_seed(seed: int, *words: int) -> int:
    """A seed in [0, 2^63) from numbers whose order matters: h = splitmix64(h ^ word), started at splitmix64(seed)."""
    state = splitmix64(seed & WORD)
    for word in words:
        state = splitmix64(state ^ word & WORD)
    return state >> 1


class StatelessSeed(Callback):
    """Seed torch before every batch from (seed, step, micro-batch, rank), so that dropout is the same after a resume.

    The micro-batch counts from 0 within its optimizer step. Validation batches have seeds of their own.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        micro = batch_idx % trainer.accumulate_grad_batches
        words = (TRAIN, trainer.global_step, micro, trainer.global_rank)
        seed_generators(derive_seed(self.seed, *words), pl_module.device)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        words = (VALIDATE, trainer.global_step, batch_idx, dataloader_idx, trainer.global_rank)
        seed_generators(derive_seed(self.seed, *words), pl_module.device)


def seed_generators(seed: int, device: torch.device) -> None:
    """Seed what draws on this device and on the CPU.

    torch.manual_seed formats the call stack for every kind of device that is not in use (PyTorch 2.7 to 2.13), which
    takes longer than a small batch.
    """
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)
