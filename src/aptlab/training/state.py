"""What is handed on between the stages of a run: the parts, then the run in progress."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer

from aptlab.config import Config
from aptlab.device import Device
from aptlab.evals.base import Eval
from aptlab.loggers import RunLogger
from aptlab.runs import RunFolder
from aptlab.tasks import Task


@dataclass(frozen=True)
class ResumePoint:
    """The checkpoint that a run goes on from: its file, its step, the id of its W&B run, and what to say about it."""

    path: Path
    step: int
    wandb_id: str | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrainParts:
    """What is built before the run has a folder, so that a mistake found here leaves nothing behind.

    config        with `vocab` filled in; `config_hash` is of the configuration as composed
    trainer_args  what the Trainer is given beside `trainer.`: device, precision and lengths
    origin        the checkpoint whose weights the run began with, or {}; see `Result`
    imported      what the checkpoint that the weights are from keeps of a folder of Hugging Face
    """

    config: Config
    config_hash: str
    device: Device
    trainer_args: dict[str, Any]
    data: Any  # a LightningDataModule that is a RunData
    task: Task
    evals: dict[str, Eval]
    resume: ResumePoint | None
    origin: dict[str, Any]
    imported: dict[str, Any] | None = None


@dataclass(frozen=True)
class TrainRun:
    """A run in progress."""

    config: Config
    config_hash: str
    folder: RunFolder
    data: Any  # a LightningDataModule that is a RunData
    task: Task
    trainer: Trainer
    device: Device
    evals: dict[str, Eval]
    loggers: list[RunLogger]
    origin: dict[str, Any]


def describe_ran(trainer: Trainer) -> dict[str, Any]:
    """What really runs, as the built Trainer says: devices, strategy, precision and lengths."""
    return {
        "device": trainer.strategy.root_device.type,
        "devices": trainer.num_devices,
        "nodes": trainer.num_nodes,
        "ranks": trainer.world_size,
        "strategy": type(trainer.strategy).__name__,
        "precision": str(trainer.precision),
        "max_steps": trainer.max_steps,
        "validate_every": int(trainer.val_check_interval) // trainer.accumulate_grad_batches,
    }
