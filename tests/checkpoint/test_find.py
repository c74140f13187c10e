"""Where a checkpoint lies."""

from __future__ import annotations

from pathlib import Path

from aptlab.checkpoint import find_run_folder


def test_a_checkpoint_knows_its_run():
    assert find_run_folder("outputs/train/x/checkpoints/step-00000010.ckpt") == Path("outputs/train/x")
    assert find_run_folder(Path("given/model.ckpt")) == Path("given")
