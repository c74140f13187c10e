"""A run that has come to its end already: nothing is trained or measured again, and how to go on is said. No torch."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from aptlab.runs.commands import write_resume_command
from aptlab.runs.result import Result, read_result_if_whole
from aptlab.shown import count_nouns

LENGTHS = ("trainer.max_steps", "trainer.max_epochs", "trainer.max_time", "trainer.accumulate_grad_batches")
LENGTHS += ("data", "device")  # decide how many steps an epoch takes


def describe_finished_run(
    folder: Path, trainer: Mapping[str, Any], changed: Collection[str], *, step: int, total: int | None = None
) -> str | None:
    """What to say in place of training where a run has nothing left to do; None where it has.

    folder   of the run
    trainer  the node of the configuration that is asked for
    changed  keys that differ from the checkpoint's configuration
    step     of the checkpoint
    total    steps that are asked for, where they are known: epochs become steps once the data are open

    A run whose evals failed, or are others now, is measured again.
    """
    result = read_finished_result(folder)
    asked = trainer.get("max_steps") if total is None else total
    if result is not None and result.steps > step and isinstance(asked, int) and 0 < asked <= step:
        return (
            f"the checkpoint is of step {step:,} and trainer.max_steps={asked} asks for no more; the run {folder} is "
            f"finished at step {result.steps:,}, and nothing of it is changed\n"
            f"go on from here with: trainer.max_steps={2 * step} run_dir=<new folder>"
        )
    if result is None or result.steps != step or any(key.partition(".")[0] == "evals" for key in changed):
        return None
    steps, epochs = trainer.get("max_steps"), trainer.get("max_epochs")
    if total is None and isinstance(steps, int) and steps > 0 and epochs in (None, -1):
        total = steps
    unchanged = not any(key == name or key.startswith(f"{name}.") for key in changed for name in LENGTHS)
    if not unchanged and (total is None or total > step):
        return None
    timed = trainer.get("max_time") is not None
    more = "trainer.max_time=<more time>" if timed and (total or 0) > step else f"trainer.max_steps={2 * step}"
    loss = result.metrics.get("val/loss")
    shown = "" if loss is None else f", val/loss {loss:.4f}"
    return (
        f"the run {folder} is finished: {count_nouns(step, 'step')}{shown}; nothing is trained or measured again\n"
        f"train it further with: {write_resume_command(folder)} {more}"
    )


def read_finished_result(folder: Path) -> Result | None:
    """The result of a run that was trained and measured without an error, or None."""
    result = read_result_if_whole(folder)
    if result is None:
        return None
    failed = any(isinstance(rows, Mapping) and "error" in rows for rows in result.evals.values())
    return None if failed or result.status != "finished" else result
