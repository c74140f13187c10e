"""The same through the command line: exit codes, what is printed, and the resumed end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from aptlab.checkpoint import find_checkpoint, read_manifest
from tests.commands.forked import run_forked
from tests.commands.small_run import words
from tests.faults.parts import differences, file_state

pytestmark = pytest.mark.slow
ARGS = ("trainer.max_steps=10", "callbacks.checkpoints.every=3", "evals=none")


def train(*args: str, fault: str = "") -> CompletedProcess[str]:
    return run_forked("train", *args, fault=fault, WANDB_MODE="disabled")


def start_anew(*args: str) -> CompletedProcess[str]:
    """The same in an interpreter of its own."""
    env = os.environ | {"WANDB_MODE": "disabled"}
    return subprocess.run([sys.executable, "-m", "aptlab", "train", *args], capture_output=True, text=True, env=env)


def test_killed_stopped_damaged_and_resumed(tmp_path):
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert start_anew(*words(*ARGS, f"run_dir={whole}")).returncode == 0
    assert train(*words(*ARGS, f"run_dir={run}"), fault="train.batch:5").returncode == -9
    assert read_manifest(find_checkpoint(run)).step == 3
    stopped = train(f"ckpt={run}", fault="val.batch:2:TERM")
    assert stopped.returncode == 143
    assert f"stopped by SIGTERM at step 5; continue with: aptlab train ckpt={run}" in stopped.stderr + stopped.stdout
    assert "Traceback" not in stopped.stderr
    newest = find_checkpoint(run)
    newest.write_bytes(newest.read_bytes()[:-1])
    refused = train(f"ckpt={newest}")
    assert refused.returncode == 2
    assert f"{newest} is truncated" in refused.stderr
    assert "Traceback" not in refused.stderr
    last = train(f"ckpt={run}")
    assert last.returncode == 0
    assert "passed over a checkpoint" in last.stderr + last.stdout
    assert differences(file_state(find_checkpoint(run)), file_state(find_checkpoint(whole))) == []
    assert columns(run) == columns(whole)


def columns(run: Path) -> list[list[str | None]]:
    from aptlab.runs import MetricsTable

    names = ("step", "epoch", "train/loss", "val/loss", "lr", "grad_norm")
    return [[row.get(name) for name in names] for row in MetricsTable.read(run / "metrics.csv").rows.values()]
