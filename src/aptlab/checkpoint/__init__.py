"""Checkpoints: atomic files with a manifest, found and verified without torch, read and written with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aptlab.checkpoint.find import choose_checkpoint, find_checkpoint, find_run_folder, remove_partial_saves
from aptlab.checkpoint.manifest import Manifest, find_checkpoint_problem, is_valid, read_manifest

if TYPE_CHECKING:
    from aptlab.checkpoint.io import load_checkpoint, save_checkpoint
    from aptlab.checkpoint.plugin import AtomicIO

__all__ = [
    "AtomicIO",
    "Manifest",
    "choose_checkpoint",
    "find_checkpoint",
    "find_checkpoint_problem",
    "find_run_folder",
    "is_valid",
    "load_checkpoint",
    "read_manifest",
    "remove_partial_saves",
    "save_checkpoint",
]


def __getattr__(name: str) -> Any:
    """Reading and writing need torch, and Lightning's plugin needs Lightning; imported when they are asked for."""
    if name == "AtomicIO":
        from aptlab.checkpoint.plugin import AtomicIO

        return AtomicIO
    if name in ("load_checkpoint", "save_checkpoint"):
        from aptlab.checkpoint import io

        return getattr(io, name)
    raise AttributeError(f"module 'aptlab.checkpoint' has no attribute {name!r}")
