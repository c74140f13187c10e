"""All ranks train the same thing, or none does."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer

from aptlab.callbacks.base import RunAware, RunContext
from aptlab.errors import ConfigError


class SameConfig(RunAware, Callback):
    """Compare the hash of the configuration over all ranks before anything is set up; ConfigError on every rank.

    Ranks of one sweep job that compose the job anew can otherwise train with different values and no error.
    """

    def __init__(self, config_hash: str = "") -> None:
        self.config_hash = config_hash

    def attach(self, run: RunContext) -> None:
        """The hash of the configuration as composed."""
        self.config_hash = run.config_hash

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if trainer.world_size == 1:
            return
        hashes: list[Any] = [None] * trainer.world_size
        dist.all_gather_object(hashes, self.config_hash)
        other = [rank for rank, value in enumerate(hashes) if value != hashes[0]]
        if other:
            raise ConfigError(
                f"rank {other[0]} has another configuration than rank 0 ({hashes[other[0]]} and {hashes[0]}); "
                "start all ranks with the same overrides, and sweeps with `aptlab train -m`"
            )
