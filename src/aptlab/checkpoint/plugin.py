"""Lightning's door to checkpoint files, apart from the files themselves: reading one needs no Lightning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO

from aptlab.checkpoint.find import delete_checkpoint
from aptlab.checkpoint.io import load_checkpoint, save_checkpoint
from aptlab.errors import CheckpointError


class AtomicIO(CheckpointIO):
    """Lightning's door to checkpoint files: `Trainer(plugins=[AtomicIO()])`.

    See `save_checkpoint` and `load_checkpoint`. Without an "aptlab" entry the manifest holds fewer facts.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        if storage_options is not None:
            raise CheckpointError("storage_options is for remote storage; checkpoints are local files here")
        save_checkpoint(checkpoint, path)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        if weights_only is False:
            raise CheckpointError(f"{path}: weights_only=False would run code out of the file; leave it out")
        return load_checkpoint(path)

    def remove_checkpoint(self, path: str | Path) -> None:
        delete_checkpoint(path)
