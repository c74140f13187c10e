"""What mixed batches were made of: the share of tokens that short factors turned, and of each kind of row."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from aptlab.callbacks.monitor import log
from aptlab.data.mixed import KINDS, regime_tokens
from aptlab.errors import ConfigError
from aptlab.limits import PositiveInt


class MixedShares(Callback):
    """Log mixed/short, the share of tokens in sequences of at most `original_len` tokens, every `every` steps.

    mixed/rows/<kind> are the shares of short, packed and long rows. Sums run over all micro-batches of this rank since
    the last line and stay on the device in between. Raises ConfigError for batches that are not of data=mixed.
    """

    def __init__(self, *, original_len: PositiveInt, every: PositiveInt = 10) -> None:
        self.original_len, self.every = original_len, every
        self._step = 0
        self._counts: Tensor | None = None  # tokens of both regimes, then rows of each kind

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if "kinds" not in batch:
            raise ConfigError("callbacks.mixed counts rows of data=mixed; choose it, or set callbacks.mixed=null")
        rows = torch.bincount(batch["kinds"], minlength=len(KINDS))
        counts = torch.cat((regime_tokens(batch, self.original_len), rows))
        self._counts = counts if self._counts is None else self._counts.to(counts.device) + counts
        step = trainer.global_step
        if step == self._step:
            return
        self._step = step
        if step % self.every == 0 or step == trainer.max_steps:
            log(trainer, self.numbers(), step)
            self._counts = None

    def numbers(self) -> dict[str, float]:
        """The shares since the last line."""
        assert self._counts is not None
        short, long, *rows = self._counts.tolist()
        kinds = {f"mixed/rows/{kind}": count / sum(rows) for kind, count in zip(KINDS, rows, strict=True)}
        return {"mixed/short": short / (short + long), **kinds}

    def state_dict(self) -> dict[str, Any]:
        """The line that is not full yet, so that a resumed run logs the same lines."""
        return {"counts": None if self._counts is None else self._counts.tolist()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        counts = state_dict["counts"]
        self._counts = None if counts is None else torch.tensor(counts)
