"""A scenario of three small texts, and `aptlab train` on it in this process: about a second a run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import aptlab
from aptlab.checkpoint import load_checkpoint
from aptlab.checkpoint.find import list_checkpoints
from aptlab.runs.record import read_record
from aptlab.testing.callbacks import find_difference

STEPS = 9
SMALL = ("scenario=small", "size=debug", "trainer=debug", f"trainer.max_steps={STEPS}", "logger=csv", "device=cpu")
SMALL += ("context=16", "data.batch=4", "data.val_batches=1", "evals=null", "validate.every=null")
SMALL += ("callbacks.checkpoints.every=1", "callbacks.checkpoints.keep=99", "data.split.val_fraction=0.2")
WORDS = {"digits": "0123456789", "lower": "abcdefghij", "upper": "QRSTUVWXYZ"}
CLOCKS = ("seconds", "tokens_per_second", "samples_per_second")


def write_scenario(*, steps: str = "null", boundaries: str = "known", empty: str | None = None) -> None:
    """conf/scenario/small.yaml, and its texts."""
    lines = ["# Three small texts.", "defaults:", "  - _self_", "  - override /data@_global_.data: tasks"]
    lines += ["_target_: aptlab.data.scenarios.Domains", f"steps: {steps}", f"boundaries: {boundaries}", "sources:"]
    for name, letters in WORDS.items():
        text = "".join(letters[(n * n + n // 7) % 10] + " " * (n % 5 == 0) for n in range(900))
        Path(f"{name}.txt").write_text("  \n" if name == empty else text)
        lines += [f"  {name}:", "    _target_: aptlab.data.sources.TextFiles", f"    files: {name}.txt"]
    path = Path("conf/scenario/small.yaml")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def train(folder: str, *words: str) -> Path:
    """Run to the end; the run's folder."""
    aptlab.train([*SMALL, *words, f"run_dir={folder}"])
    return Path(folder)


def read_state(folder: Path, step: int = STEPS) -> dict[str, Any]:
    return load_checkpoint(folder / "checkpoints" / f"step-{step:08d}.ckpt")


def read_tasks(folder: Path) -> dict[str, Any]:
    return read_record(folder / "tasks.json", dict)[0]


def resume_copy(whole: Path, step: int, name: str) -> Path:
    """A copy of a run's folder as it was at a step, trained on to the end."""
    copy = Path(shutil.copytree(whole, name))
    for path in list_checkpoints(copy / "checkpoints"):
        if int(path.stem.rpartition("-")[2]) > step:
            path.unlink()
    aptlab.train([f"ckpt={copy}/checkpoints/step-{step:08d}.ckpt"])
    return copy


def find_run_difference(one: Path, other: Path, step: int = STEPS) -> str | None:
    """Where two runs end differently: weights, optimizer, data, callbacks, and what they measured."""
    states = [read_state(folder, step) for folder in (one, other)]
    for key in ("state_dict", "optimizer_states", "callbacks", "TextTasks", "ImageTasks", "LabelledTextTasks"):
        if (found := find_difference(states[0].get(key), states[1].get(key), CLOCKS)) is not None:
            return f"{key}{found}"
    return find_difference(read_tasks(one), read_tasks(other))
