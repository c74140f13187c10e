"""Run folders made of numbers, for tests of reports."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import yaml


def make_run(
    root: Path, name: str, *, seed: int = 0, loss: float | None = 1.5, lr: float | None = None, **changes: Any
) -> Path:
    """A finished run with four lengths and four validations; `changes` go into result.json."""
    choices = {"rope": "standard", "smooth": "none", "logger": "csv"} | changes.pop("choices", {})
    overrides = [f"{key}={value}" for key, value in choices.items()] + [f"seed={seed}", f"run_dir='{root}/{name}'"]
    overrides += [f"optim.lr={lr}"] if lr else []
    folder = root / name
    folder.mkdir(parents=True)
    config = {"seed": seed, "optim": {"lr": lr or 1e-3}, "rope": {"base": 1e4}}
    for file, content in (("config", config), ("overrides", overrides), ("choices", choices)):
        (folder / f"{file}.yaml").write_text(yaml.safe_dump(content))
    write_metrics(folder, 2.0 if loss is None else loss)
    ppl = None if loss is None else math.exp(loss)
    lengths = [
        {"multiple": m, "length": 64 * m, "loss": loss, "ppl": ppl and ppl * m, "bpb": loss, "tokens": 640}
        for m in (1, 2, 4, 8)
    ]
    metrics = {"val/loss": loss, "val/ppl": ppl, "val/bpb": loss and loss / math.log(2), "train/loss": 1.0}
    result = {
        "status": "finished",
        "job": "train",
        "seed": seed,
        "choices": choices,
        "overrides": overrides,
        "steps": 100,
        "tokens": 100 * 512,
        "tokens_per_second": 1000.0,
        "parameters": 5000,
        "context": 64,
        "data": {"name": "text", "fingerprint": "abc"},
        "metrics": metrics,
        "lengths": lengths,
    }
    (folder / "result.json").write_text(json.dumps(result | changes))
    return folder


def write_metrics(folder: Path, loss: float) -> None:
    with open(folder / "metrics.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["step", "epoch", "train/loss", "val/loss"])
        for step in range(10, 101, 10):
            writer.writerow([step, 0, 1 + 30 / step, loss + 20 / step if step % 20 == 0 else ""])
