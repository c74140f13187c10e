"""Harmless stand-ins for what somebody might send: a process that leaves a marker, a checkpoint with other words."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aptlab.checkpoint import AtomicIO, load_checkpoint
from aptlab.runs import Run

FAKE = "fake-key-0123456789abcdef"  # what must stay on this machine
VARIABLE = "APTLAB_TEST_API_KEY"


def touch_marker(marker: Path) -> dict[str, Any]:
    """A node of a class of ours that starts a process as soon as it is built: it makes an empty file."""
    job = {
        "_target_": "aptlab.sweep.job.JobCommand",
        "index": 0,
        "name": "job",
        "command": ["touch", str(marker)],
        "log": str(marker.with_suffix(".log")),
        "stop": str(marker.with_suffix(".stop")),
        "cwd": str(marker.parent),
    }
    return {"_target_": "aptlab.sweep.child.ChildProcess", "task": job, "grace": 1.0}


def left_marks(marker: Path) -> list[str]:
    """What the process of `touch_marker` would have left; its log is there as soon as it is begun."""
    return sorted(path.name for path in marker.parent.glob(f"{marker.stem}*"))


def doctor_checkpoint(run: Run, folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of a run's last checkpoint with a changed "aptlab" entry and a manifest that vouches for it."""
    newest = max((run.path / "checkpoints").glob("*.ckpt"))
    state = copy.deepcopy(load_checkpoint(newest))
    change(state["aptlab"])
    path = folder / "checkpoints" / newest.name
    path.parent.mkdir(parents=True)
    AtomicIO().save_checkpoint(state, path)
    return path


def set_value(tree: Any, key: str, value: Any) -> None:
    """Put a value at a dotted key of plain containers."""
    *parents, last = key.split(".")
    for part in parents:
        tree = tree[int(part)] if isinstance(tree, list) else tree[part]
    tree[last] = value
