"""What is done to a training to see whether it breaks. Legend: B batch, T tokens, C dim."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer

from aptlab.callbacks.gradients.base import find_graded
from aptlab.nn.layer import Layer
from aptlab.objectives import IGNORE

SHARE, FACTOR = 0.002, 100.0  # of tokens whose vector is multiplied, and by what
GRADIENT = 1000.0  # factor on one weight's gradient
NGRAM = 4


class StressCallback(Callback):
    """Disturb a training as its name says; must stand before the guard.

    branch     in training, SHARE of a layer's output vectors are FACTOR times as large, in every layer
    embedding  the same of the embedding's
    gradient   one weight's gradient is GRADIENT times as large, every `every` steps
    data       half of a batch's rows are one n-gram over and over, the others are shuffled, every `every` steps
    Other names disturb nothing here. What is drawn is a function of torch's seed at that step.
    """

    def __init__(self, name: str, *, every: int) -> None:
        self.name, self.every = name, every

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.name == "branch":
            disturbed: list[nn.Module] = [module for module in pl_module.modules() if isinstance(module, Layer)]
        elif self.name == "embedding":
            disturbed = [next(module for module in pl_module.modules() if isinstance(module, nn.Embedding))]
        else:
            return
        for module in disturbed:
            module.register_forward_hook(magnify_tokens)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self.name == "data" and batch_idx % self.every == self.every - 1:
            spoil_batch(batch)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        step = trainer.global_step
        if self.name == "gradient" and step % self.every == self.every - 1:
            weights = list(find_graded(pl_module).values())
            gradient = weights[step // self.every * 7 % len(weights)].grad
            assert gradient is not None
            gradient.mul_(GRADIENT)


def magnify_tokens(module: nn.Module, args: Any, output: Tensor) -> Tensor:
    """A forward hook: some vectors of [B, T, C] are FACTOR times as large, in training."""
    del args
    if not module.training:
        return output
    chosen_BT1 = torch.rand(*output.shape[:-1], 1, device=output.device) < SHARE
    return torch.where(chosen_BT1, FACTOR * output, output)


def spoil_batch(batch: dict[str, Tensor]) -> None:
    """Rows of a batch of a language task, in place: the first half repeats an n-gram, the second is shuffled."""
    tokens_BT, targets_BT = batch["tokens"], batch["targets"]
    last_B1 = torch.where(targets_BT[:, -1:] == IGNORE, tokens_BT[:, -1:], targets_BT[:, -1:])
    text_BS = torch.cat((tokens_BT, last_B1), dim=1)
    half, length = len(text_BS) // 2, text_BS.shape[1]
    text_BS[:half] = text_BS[:half, torch.arange(length, device=text_BS.device) % NGRAM]
    text_BS[half:] = text_BS[half:, torch.randperm(length, device=text_BS.device)]
    tokens_BT.copy_(text_BS[:, :-1])
    targets_BT.copy_(torch.where(targets_BT == IGNORE, IGNORE, text_BS[:, 1:]))
