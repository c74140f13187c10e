"""What a data module asks of its trainer: which rows are this rank's, and how many batches have been read."""

from __future__ import annotations

from typing import Any, cast

from lightning.pytorch import Trainer
from lightning.pytorch.strategies import ParallelStrategy


def find_rank_share(trainer: Trainer | None) -> tuple[int, int]:
    """Rank and number of ranks that get different rows (tensor-parallel ranks share theirs); (0, 1) without one."""
    if trainer is None or not isinstance(trainer.strategy, ParallelStrategy):
        return 0, 1
    share = trainer.strategy.distributed_sampler_kwargs
    return share["rank"], share["num_replicas"]


def count_read_batches(trainer: Trainer | None) -> int:
    """Micro-batches that Lightning has counted, over all resumes; 0 without a trainer."""
    return 0 if trainer is None else cast(Any, trainer.fit_loop.epoch_loop.batch_progress.total).processed
