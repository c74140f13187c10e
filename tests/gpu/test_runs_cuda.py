"""Whole runs on CUDA devices: the guard inside the fused kernel, going on after a kill, several devices."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.callbacks.test_guard import Poison, equal, fit

from aptlab.callbacks.guard import NonFiniteGuard
from aptlab.checkpoint import find_checkpoint, load_checkpoint
from aptlab.errors import TrainingError

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
DEBUG = ["size=debug", "trainer=debug", "context=64", "logger=csv", "callbacks.checkpoints.every=2"]


@pytest.mark.parametrize("what", ["gradient", "loss"])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_the_fused_kernel_skips_a_bad_step_bit_for_bit(what, precision):
    settings = {"accelerator": "cuda", "precision": precision, "gradient_clip_val": 1.0}
    guard, states, monitor = fit(Poison(3, what=what), **settings)
    assert states.skipped == [False, False, False, True, False, False]
    assert equal(states.states[3], states.states[2])
    assert not equal(states.states[4], states.states[3])
    assert guard.skipped_steps == monitor.latest["skipped_steps"] == 1


def test_bad_steps_in_a_row_end_the_run_when_the_flags_are_read():
    with pytest.raises(TrainingError, match="steps in a row had a loss or gradient that is not finite"):
        fit(Poison(2, count=50), guard=NonFiniteGuard(patience=3, every=4), steps=20, accelerator="cuda")


def aptlab(*args: str, fault: str = "") -> subprocess.CompletedProcess[str]:
    env = os.environ | {"APTLAB_FAULT": fault}
    command = [sys.executable, "-m", "aptlab", *args]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(find_checkpoint(run))["state_dict"]


def test_a_killed_run_goes_on_to_the_same_weights(tmp_path: Path):
    """Equal up to the order of sums: CUDA adds gradients of the embedding in no fixed order."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert aptlab("train", *DEBUG, "device=cuda", f"run_dir={whole}").returncode == 0
    assert aptlab("train", *DEBUG, "device=cuda", f"run_dir={killed}", fault="train.batch:8").returncode == -9
    done = aptlab("train", f"ckpt={killed}")
    assert done.returncode == 0, done.stderr
    expected, got = weights(whole), weights(killed)
    assert all(torch.allclose(got[name], expected[name], atol=2e-3) for name in expected)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_two_devices_train_as_one_run(tmp_path: Path):
    run = tmp_path / "run"
    done = aptlab("train", *DEBUG, "device=ddp", "smooth=memory", f"run_dir={run}")
    assert done.returncode == 0, done.stderr
    result = json.loads((run / "result.json").read_text())
    assert (result["steps"], result["tokens"]) == (10, 10 * 2 * 16 * 64)
    assert "2 cuda" in done.stdout
