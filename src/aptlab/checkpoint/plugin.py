"""Lightning's door to checkpoint files, apart from the files themselves: reading one needs no Lightning."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO

from aptlab.checkpoint.find import delete_checkpoint
from aptlab.checkpoint.finite import find_poison
from aptlab.checkpoint.io import load_checkpoint, save_checkpoint
from aptlab.errors import CheckpointError, PoisonedError


@dataclass(frozen=True)
class SaveOptions:
    """What a save may do: `Trainer.save_checkpoint(path, storage_options=SaveOptions(…))`.

    spend    the space that is held in the folder, see `reserve`
    weights  names of the trained weights, which must be finite, as the rest must not be NaN; None: no look at them
    """

    spend: bool = False
    weights: Collection[str] | None = None


class AtomicIO(CheckpointIO):
    """Lightning's door to checkpoint files: `Trainer(plugins=[AtomicIO()])`.

    See `save_checkpoint` and `load_checkpoint`. Without an "aptlab" entry the manifest holds fewer facts.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write one; PoisonedError, and nothing written, where its numbers are not finite and are to be."""
        options = SaveOptions() if storage_options is None else storage_options
        if not isinstance(options, SaveOptions):
            raise CheckpointError("storage_options is for remote storage; checkpoints are local files here")
        poison = None if options.weights is None else find_poison(checkpoint, options.weights)
        if poison:
            raise PoisonedError(poison)
        save_checkpoint(checkpoint, path, spend=options.spend)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        if weights_only is False:
            raise CheckpointError(f"{path}: weights_only=False would run code out of the file; leave it out")
        return load_checkpoint(path)

    def remove_checkpoint(self, path: str | Path) -> None:
        delete_checkpoint(path)
