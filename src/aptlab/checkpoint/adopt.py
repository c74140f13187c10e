"""A new manifest for a checkpoint that lost its own, on the word of who asks for it."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import torch

from aptlab.checkpoint.aside import SUFFIX, is_whole_archive
from aptlab.checkpoint.io import make_manifest
from aptlab.checkpoint.manifest import Manifest, find_checkpoint_problem, hash_file, write_manifest
from aptlab.errors import CheckpointError


def adopt_checkpoint(path: str | Path) -> Path:
    """Take a `step-….ckpt.unverified` in again: its name without the ending, and a manifest of what it holds now.

    What it held when it was saved nobody can tell any more: its archive is whole, and that is all that is checked.
    Raises CheckpointError where it is not, where it cannot be read with weights_only=True, or where a valid checkpoint
    has the name already.
    """
    path = Path(path)
    home = path.with_name(path.name.partition(SUFFIX)[0])
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; give a checkpoint, or one that ends in .ckpt{SUFFIX}")
    if home.suffix != ".ckpt":
        raise CheckpointError(f"{path} is no checkpoint; give a file that ends in .ckpt or .ckpt{SUFFIX}")
    if find_checkpoint_problem(home, deep=False) is None:
        raise CheckpointError(f"{home} is there already and has a manifest; move it away first")
    manifest = read_contents(path)
    if home != path:
        os.replace(path, home)
    write_manifest(home, manifest)
    return home


def read_contents(path: Path) -> Manifest:
    """A manifest made of what a file holds; CheckpointError where that cannot be read."""
    if not is_whole_archive(path):
        raise CheckpointError(f"{path} is damaged: its archive is not whole; use another checkpoint of the run")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        return make_manifest(checkpoint, hash_file(path), path.stat().st_size)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, TypeError, ValueError, AttributeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{path} cannot be read with weights_only=True: {reason}") from None
