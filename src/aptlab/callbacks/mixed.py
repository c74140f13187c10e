"""What mixed batches were made of, and the loss of each kind of row.

Legend: B rows of a micro-batch, K kinds of rows (short, packed, long).
"""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from aptlab.callbacks.monitor import log_numbers
from aptlab.data.rows.regimes import count_regime_tokens
from aptlab.data.rows.shares import KINDS
from aptlab.errors import ConfigError
from aptlab.limits import PositiveInt
from aptlab.objectives import get_step_state


class MixedShares(Callback):
    """Log mixed/short, the share of tokens in sequences of at most `original_len` tokens, every `every` steps.

    mixed/rows/<kind> are the shares of short, packed and long rows, and train/loss_<kind> the loss per token of each
    kind, where there were any. Sums run over all micro-batches of all ranks since the last line and stay on the device
    in between, so that no step waits for a number. Raises ConfigError for batches that are not of data=mixed.
    """

    def __init__(self, *, original_len: PositiveInt | None, every: PositiveInt = 10) -> None:
        if original_len is None:
            raise ConfigError("original_len=null: give the tokens that the weights were trained with, as in 2048")
        self.original_len, self.every = original_len, every
        self._step = 0
        self._counts: Tensor | None = None  # int64: tokens of both regimes, then rows of each kind
        self._losses: Tensor | None = None  # float64 [2, K]: sums of losses, numbers of targets

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._step = trainer.global_step

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        get_step_state(pl_module).wants_rows = True

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if "kinds" not in batch:
            raise ConfigError(
                "the monitor of mixed rows has none to count; use data=mixed, or callbacks.<its name>=null"
            )
        self.add(batch, get_step_state(pl_module).rows)
        step = trainer.global_step
        if step == self._step:
            return
        self._step = step
        if step % self.every == 0 or step == trainer.max_steps:
            self._sum_ranks(trainer)
            log_numbers(trainer, self.numbers(), step)
            self._counts = self._losses = None

    def _sum_ranks(self, trainer: Trainer) -> None:
        """Add up what all ranks have counted."""
        if trainer.world_size > 1:
            self._counts = trainer.strategy.reduce(self._counts, reduce_op="sum")
            self._losses = None if self._losses is None else trainer.strategy.reduce(self._losses, reduce_op="sum")

    def add(self, batch: dict[str, Tensor], rows_2B: Tensor | None) -> None:
        """Count one micro-batch; nothing is read by the host (`torch.bincount` would be)."""
        is_BK = batch["kinds"].unsqueeze(1) == torch.arange(len(KINDS), device=batch["kinds"].device)
        counts = torch.cat((count_regime_tokens(batch, self.original_len), is_BK.sum(0)))
        self._counts = counts if self._counts is None else self._counts.to(counts.device) + counts
        if rows_2B is not None:
            # Not a product: a row that is not finite spoils its own kind alone.
            losses = torch.where(is_BK, rows_2B.unsqueeze(2), 0.0).sum(1)
            self._losses = losses if self._losses is None else self._losses.to(losses.device) + losses

    def numbers(self) -> dict[str, float]:
        """Shares and losses since the last line."""
        assert self._counts is not None
        short, long, *rows = self._counts.tolist()
        kinds = {f"mixed/rows/{kind}": count / sum(rows) for kind, count in zip(KINDS, rows, strict=True)}
        found = {"mixed/short": short / (short + long), **kinds}
        if self._losses is None:
            return found
        losses = zip(KINDS, *self._losses.tolist(), strict=True)
        return found | {f"train/loss_{kind}": nats / count for kind, nats, count in losses if count}

    def state_dict(self) -> dict[str, Any]:
        """The line that is not full yet, so that a resumed run logs the same lines."""
        totals = {"counts": self._counts, "losses": self._losses}
        plain = {name: None if sums is None else sums.tolist() for name, sums in totals.items()}
        return {**plain, "original_len": self.original_len}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict.get("original_len", self.original_len) != self.original_len:
            return  # counted with another limit between short and long: the line begins anew
        counts, losses = state_dict["counts"], state_dict.get("losses")  # none in checkpoints of before
        self._counts = None if counts is None else torch.tensor(counts)
        self._losses = None if losses is None else torch.tensor(losses, dtype=torch.float64)
