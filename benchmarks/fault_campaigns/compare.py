"""What campaigns ask of a run folder: its last checkpoint, and whether it ended as a run that nothing happened to."""

from __future__ import annotations

from pathlib import Path

COLUMNS = ("train/loss", "val/loss", "lr", "grad_norm")


def is_same_run(run: Path, whole: Path) -> bool:
    """Weights, optimizer state and logged numbers equal to the bit."""
    from tests.faults.parts import differences, file_state

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
