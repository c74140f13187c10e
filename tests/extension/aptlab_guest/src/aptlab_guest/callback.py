"""A callback that counts what a run has trained on, over all of its resumes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class TokenCounter(Callback):
    """Sum of tokens of all batches, kept in checkpoints, written to `file` at the end."""

    def __init__(self, *, file: str) -> None:
        self.file, self.tokens = file, 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count one batch."""
        self.tokens += batch["tokens"].numel()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say the number."""
        Path(self.file).write_text(f"{self.tokens}\n")

    def state_dict(self) -> dict[str, Any]:
        """The sum so far."""
        return {"tokens": self.tokens}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self.tokens = state_dict["tokens"]
