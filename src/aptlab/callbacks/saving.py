"""One attempt to save, the same for all ranks, and what can be done where it fails."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from lightning.pytorch import LightningModule, Trainer

from aptlab.checkpoint.find import delete_checkpoint, list_checkpoints
from aptlab.checkpoint.manifest import (
    format_poisoned_name,
    is_valid,
    make_manifest_path,
    parse_checkpoint_step,
)
from aptlab.checkpoint.plugin import SaveOptions
from aptlab.errors import CheckpointError, NoSpaceError, PoisonedError
from aptlab.runs.commands import write_command_from

log = logging.getLogger("aptlab")


@dataclass(frozen=True)
class SaveProblem:
    """Why a checkpoint was not written.

    message  for the user
    missing  bytes that have to be freed first, where the disk is full
    poison   which numbers are not finite, where that is why
    passing  whether the system refused, so that it may work a little later
    """

    message: str
    missing: int = 0
    poison: str = ""
    passing: bool = False


def attempt_save(trainer: Trainer, path: Path, options: SaveOptions) -> SaveProblem | None:
    """Save the state of all ranks; what went wrong, the same on all of them, or None."""
    problem = None
    try:
        trainer.save_checkpoint(path, weights_only=False, storage_options=options)
    except CheckpointError as error:
        problem = describe_problem(error)
        trainer.strategy.barrier("save")  # the others wait for us in save_checkpoint
    return trainer.strategy.broadcast(problem)


def describe_problem(error: CheckpointError) -> SaveProblem:
    """The error as plain values, which ranks can send each other."""
    if isinstance(error, PoisonedError):
        return SaveProblem(str(error), poison=str(error))
    if isinstance(error, NoSpaceError):
        return SaveProblem(str(error), missing=max(error.missing, 1))
    return SaveProblem(str(error), passing=isinstance(error.__cause__, OSError))


def list_trained_weights(module: LightningModule) -> frozenset[str]:
    """Names of the weights that training changes, as `state_dict` has them."""
    return frozenset(name for name, weight in module.named_parameters() if weight.requires_grad)


def find_newest_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint of a folder, its content not read again; None where there is none."""
    return next((path for path in reversed(list_checkpoints(folder)) if is_valid(path, deep=False)), None)


def make_room(folder: Path, missing: int, keepers: Collection[Path | None]) -> bool:
    """Remove older checkpoints, the oldest first, where that frees `missing` bytes; whether it was done.

    keepers  stay, and so does the newest whole one
    """
    stay = {*keepers, find_newest_checkpoint(folder)}
    spare = [*list_poisoned(folder), *(path for path in list_checkpoints(folder) if path not in stay)]
    freed, chosen = 0, []
    for path in spare:
        if freed < missing:
            freed += sum(file.stat().st_size for file in (path, make_manifest_path(path)) if file.is_file())
            chosen.append(path)
    if freed < missing or not chosen:
        return False
    for path in chosen:
        delete_checkpoint(path)
    log.warning("removed to make room for the next checkpoint: %s", ", ".join(path.name for path in chosen))
    return True


def list_poisoned(folder: Path) -> list[Path]:
    """Files of weights that are not finite."""
    return sorted(path for path in folder.glob("poisoned-*.ckpt") if not path.is_symlink())


def set_poisoned_aside(trainer: Trainer, folder: Path) -> Path | None:
    """Keep the state of all ranks for a look at it, where no search for checkpoints finds it; at most one is kept.

    The file, or None where it could not be written.
    """
    path = folder / format_poisoned_name(trainer.global_step)
    if trainer.is_global_zero:
        for old in list_poisoned(folder):
            delete_checkpoint(old)
    return path if attempt_save(trainer, path, SaveOptions()) is None else None


def describe_last_saved(folder: Path) -> str:
    """The last step that is saved, and how to go on."""
    last = find_newest_checkpoint(folder)
    if last is None:
        return "no step is saved"
    step = parse_checkpoint_step(last)
    return f"the last saved step is {step} ({last.name}); go on with: {write_command_from(last)}"


def advise_good_checkpoint(folder: Path) -> str:
    """How to go on from the newest checkpoint, all of which hold finite numbers."""
    last = find_newest_checkpoint(folder)
    if last is None:
        return "no checkpoint was saved before; start again with a lower optim.lr or trainer.gradient_clip_val"
    return (
        f"continue from the last good checkpoint with a lower optim.lr or trainer.gradient_clip_val: aptlab train "
        f"ckpt={last} load=resume optim.lr=…"
    )
