"""Lightning's counters, derived from the one number that matters: optimizer steps taken.

A checkpoint of ours always stands at the end of an optimizer step, with the validation of that step done or not. What
Lightning 2.6 stores depends on the hook that saved, and its own resume skips a validation that was due, or repeats one.
So nothing of its counters is believed: they are written anew when a checkpoint is loaded.
"""

from __future__ import annotations

from typing import Any, cast

from lightning.pytorch import Trainer
from lightning.pytorch.loops.progress import _ProcessedTracker as ProcessedTracker

Counters = dict[str, Any]
LOOP = "epoch_loop."


def count_partial_batches(trainer: Trainer) -> int:
    """Micro-batches trained on since the last optimizer step."""
    current = cast(ProcessedTracker, trainer.fit_loop.epoch_loop.batch_progress.current)
    return current.processed % trainer.accumulate_grad_batches


def is_validation_due(trainer: Trainer, step: int) -> bool:
    """Whether validation belongs to the end of this step (the Trainer counts micro-batches)."""
    interval = trainer.val_check_interval
    if not trainer.enable_validation or not isinstance(interval, int) or step == 0:
        return False
    return step * trainer.accumulate_grad_batches % interval == 0


def rewrite_fit_loop(fit_loop: Counters, trainer: Trainer, *, step: int, validated: bool) -> None:
    """Change the "fit_loop" entry of a checkpoint in place so that training goes on right after `step`.

    The loader has no end, so that all of training is one epoch. With another `accumulate_grad_batches` than before, the
    counters are those of a run that always had it. A validation that is due and was not finished runs first, whole.
    """
    due = is_validation_due(trainer, step)
    batches = step * trainer.accumulate_grad_batches
    everything = {"ready": batches, "started": batches, "processed": batches, "completed": batches}
    fit_loop["epoch_progress"] = _both({"ready": 1, "started": 1, "processed": 0, "completed": 0})
    fit_loop[f"{LOOP}batch_progress"] = _both(everything) | {"is_last_batch": False}
    fit_loop[f"{LOOP}scheduler_progress"] = _both({"ready": step, "completed": step})
    fit_loop[f"{LOOP}automatic_optimization.optim_progress"] = {
        "optimizer": {
            "step": _both({"ready": step, "completed": step}),
            "zero_grad": _both({"ready": step, "started": step, "completed": step}),
        }
    }
    # The loop adds one when it comes back to the place of a validation, also for step 0, where none is due.
    waits = due or (step == 0 and trainer.enable_validation)
    fit_loop[f"{LOOP}state_dict"] = {"_batches_that_stepped": step - waits}
    unfinished = int(due and not validated)
    fit_loop[f"{LOOP}val_loop.batch_progress"] = {
        "total": {"ready": unfinished, "started": unfinished, "processed": 0, "completed": 0},
        "current": {"ready": 0, "started": 0, "processed": 0, "completed": 0},
        "is_last_batch": False,
    }


def _both(counts: dict[str, int]) -> Counters:
    return {"total": dict(counts), "current": dict(counts)}
