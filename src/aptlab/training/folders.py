"""A run folder that is there already: what a new run must not overwrite, and what going back puts aside. No torch."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

from aptlab.checkpoint import is_valid
from aptlab.checkpoint.find import FOLDER, list_checkpoints
from aptlab.checkpoint.manifest import parse_checkpoint_step
from aptlab.errors import ConfigError
from aptlab.runs.commands import write_resume_command
from aptlab.runs.files import refuse_link, require_own_file
from aptlab.runs.ranks import get_process_rank
from aptlab.runs.result import EARLIER
from aptlab.training.ended import read_finished_result
from aptlab.training.inherited import list_lasting_words

log = logging.getLogger("aptlab")


def refuse_used_folder(run_dir: str | Path | None, typed: Sequence[str] = ()) -> None:
    """ConfigError where a new run is to be written into the folder of another, which it would replace bit by bit.

    typed  the command line: what no checkpoint keeps of it, the command to go on repeats
    """
    if run_dir is None or get_process_rank() != 0:  # the other ranks come when this one has begun
        return
    folder = Path(run_dir).expanduser()
    if not folder.is_dir():  # new, or a file, which is told where the folder is made
        return
    step = find_last_step(folder)
    if step is None and read_finished_result(folder) is None:
        return
    done = "a finished run" if step is None else f"a run, saved at step {step:,}"
    command = write_resume_command(folder, *list_lasting_words(typed))
    raise ConfigError(f"run_dir={run_dir} holds {done}; give another folder, or go on with that run: {command}")


def find_last_step(folder: Path) -> int | None:
    """The step of the newest checkpoint of a run folder that is whole, or None."""
    files = [path for path in list_checkpoints(folder / FOLDER) if is_valid(path, deep=False)]
    return parse_checkpoint_step(files[-1]) if files else None


def keep_later_metrics(folder: Path, step: int) -> None:
    """Before a run goes on from `step`: say that later steps of it are replaced, and keep their metrics.csv.

    Nothing where it goes on from its newest checkpoint, as after a crash.
    """
    last, metrics = find_last_step(folder), folder / "metrics.csv"
    if last is None or last <= step:
        return
    kept = folder / EARLIER / f"metrics-to-step-{last:08d}.csv"
    if metrics.is_file() and not kept.exists():
        kept.parent.mkdir(exist_ok=True)
        shutil.copyfile(refuse_link(metrics), require_own_file(kept))
    log.warning(
        "going back from step %s to %s: what comes replaces the later checkpoints, and their metrics are kept in %s; "
        "run_dir=<new folder> leaves this run as it is",
        *(f"{last:,}", f"{step:,}", kept),
    )
