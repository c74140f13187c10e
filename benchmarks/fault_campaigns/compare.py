"""What campaigns ask of a run folder: its last checkpoint, and whether it ended as a run that nothing happened to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

COLUMNS = ("train/loss", "val/loss", "lr", "grad_norm")


def is_same_run(run: Path, whole: Path) -> bool:
    """Weights, optimizer state and logged numbers equal to the bit."""
    from aptlab.checkpoint import find_checkpoint

    if differences(file_state(find_checkpoint(run)), file_state(find_checkpoint(whole))):
        return False
    return _read_numbers(run) == _read_numbers(whole)


def find_last_step(run: Path) -> int:
    """The step of the newest valid checkpoint; 0 where there is none."""
    from aptlab.checkpoint import find_checkpoint, read_manifest
    from aptlab.errors import CheckpointError

    try:
        return read_manifest(find_checkpoint(run)).step
    except CheckpointError:
        return 0


def _read_numbers(run: Path) -> list[list[str | None]]:
    from aptlab.runs import MetricsTable

    return [[row.get(name) for name in COLUMNS] for row in MetricsTable.read(run / "metrics.csv").rows.values()]


def differences(one: dict[str, Tensor], other: dict[str, Tensor]) -> list[str]:
    """Names of tensors that are not equal to the bit; empty when all are."""
    names = sorted(set(one) | set(other))
    return [name for name in names if name not in one or name not in other or not one[name].equal(other[name])]


def file_state(path: Path) -> dict[str, Tensor]:
    """Every tensor of weights, buffers and optimizer in a checkpoint."""
    from aptlab.checkpoint import load_checkpoint

    content = load_checkpoint(path)
    tensors = dict(content["state_dict"])
    for number, state in content["optimizer_states"][0]["state"].items():
        tensors |= {f"optimizer/{number}/{name}": value for name, value in state.items()}
    return tensors
