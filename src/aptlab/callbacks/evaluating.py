"""Passes of the network between two steps, without a trace."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from lightning.pytorch import LightningModule, Trainer


@contextlib.contextmanager
def evaluate_quietly(trainer: Trainer, module: LightningModule) -> Iterator[None]:
    """Evaluation mode without gradients, in the precision of the run; every module gets its own mode back."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.no_grad(), trainer.precision_plugin.val_step_context():
            yield
    finally:
        for part, mode in modes:
            part.training = mode
