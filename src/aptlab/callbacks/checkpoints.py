"""When checkpoints are written, which are kept, and how a run goes on from one."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer.states import TrainerFn

from aptlab.callbacks import loops
from aptlab.callbacks.base import RunAware, RunContext
from aptlab.callbacks.lookup import get_datamodule
from aptlab.callbacks.saving import (
    SaveProblem,
    advise_good_checkpoint,
    attempt_save,
    describe_last_saved,
    list_trained_weights,
    make_room,
    set_poisoned_aside,
)
from aptlab.checkpoint import is_valid, remove_partial_saves
from aptlab.checkpoint.find import FOLDER, delete_checkpoint, list_checkpoints
from aptlab.checkpoint.finite import has_finite_weights
from aptlab.checkpoint.manifest import format_checkpoint_name, parse_checkpoint_step
from aptlab.checkpoint.measure import describe_measure, find_measure_change, rate_checkpoints
from aptlab.checkpoint.plugin import SaveOptions
from aptlab.checkpoint.reserve import hold_reserve, measure_reserve, release_reserve
from aptlab.errors import AptlabError, CheckpointError, ConfigError, TrainingError, UnsavedError
from aptlab.faults import inject_fault
from aptlab.limits import NonNegativeInt, PositiveInt, find_limit
from aptlab.runs.commands import write_resume_command

log = logging.getLogger("aptlab")
WAITS = (1.0, 5.0)  # seconds before a save is tried again that the system refused, before a run ends for it


class Checkpoints(RunAware, Checkpoint):
    """Save every `every` optimizer steps, after a validation that was the best so far, and at the end.

    A step is saved once, after its validation, at the beginning of the next one; never between micro-batches. Kept are
    the `keep` newest and the `keep_best` best by `monitor`; a metric that is no finite number, or weights that hold one
    such, is never best. Where a resumed run is validated by another metric or on other rows than before, the old best
    does not count, and its file stays beside the new one.

    A save that fails is tried again, on a full disk once older checkpoints made room for it, down to the newest whole
    one and the best. With `on_error=stop` the run then ends with exit code 1; with `continue` it goes on and tries
    after the next interval. `reserve` holds the space of one more checkpoint in the folder, spent where the run ends:
    by that, by a signal, or by its last step. A run whose last step is not on the disk raises UnsavedError.

    Weights, optimizer state, or averages that are not finite are kept aside as poisoned-step-….ckpt, which is no
    checkpoint, and TrainingError ends the run.

    The description of the run becomes the "aptlab" entry of the file. Raises ConfigError and CheckpointError.
    """

    def __init__(
        self,
        *,
        every: PositiveInt = 100,
        keep: PositiveInt = 2,
        keep_best: NonNegativeInt = 1,
        monitor: str = "val/loss",
        mode: Literal["min", "max"] = "min",
        on_error: Literal["stop", "continue"] = "stop",
        reserve: bool = True,
    ) -> None:
        _check("every", every, PositiveInt)
        _check("keep", keep, PositiveInt)
        _check("keep_best", keep_best, NonNegativeInt)
        self.every, self.keep, self.keep_best = every, keep, keep_best
        self.monitor, self.mode, self.on_error, self.reserve = monitor, mode, on_error, reserve
        self.folder: Path | None = None
        self.describe: Callable[[], dict[str, Any]] = dict
        self._replace_end: Callable[[], None] = lambda: None
        self.last: Path | None = None  # newest file that this process saved or continued from
        self._saved: tuple[int, bool] | None = None  # step, and whether its validation was done
        self._tried = -1
        self._foreign: set[Path] = set()  # files of another start or continuation, removed after the first save
        self._validated: int | None = None
        self._metric: float | None = None
        self._best: float | None = None
        self._improved = False
        self._named_monitor = False  # whether a monitor that is not measured was told
        self._unfinished: int | None = None  # step whose validation did not end
        self._max_steps: int | None = None
        self._unheld: str | None = None  # why no space is held, once that was told

    def attach(self, run: RunContext) -> None:
        """Where the run is, and what to write about it."""
        self.folder, self.describe, self._replace_end = run.folder, run.describe, run.replace_end

    @property
    def directory(self) -> Path:
        """Where the files are."""
        if self.folder is None:
            raise CheckpointError("Checkpoints has no folder; call attach(RunContext(folder=…)) before Trainer.fit")
        return self.folder / FOLDER

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit" and trainer.is_global_zero and (removed := remove_partial_saves(self.directory)):
            log.info("removed the remains of an interrupted save: %s", ", ".join(removed))

    # What is saved and what comes back

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        step = trainer.global_step
        metric = self._metric if self._validated == step else None
        facts = {"version": 1, "step": step, "metric": metric, "monitor": self.monitor, "mode": self.mode}
        checkpoint["aptlab"] = self.describe() | facts
        data = checkpoint.get(type(get_datamodule(trainer)).__qualname__)
        if isinstance(data, dict) and "micro_batches" in data:
            data["micro_batches"] -= loops.count_partial_batches(trainer)

    def state_dict(self) -> dict[str, Any]:
        return {"validated": self._validated, "metric": self._metric, "best": self._best}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if trainer.state.fn != TrainerFn.FITTING or "aptlab" not in checkpoint:
            return
        mine = checkpoint.get("callbacks", {}).get(self.state_key, {})
        step = checkpoint["aptlab"]["step"]
        self._validated, self._metric, self._best = mine.get("validated"), mine.get("metric"), mine.get("best")
        self._forget_other_best(checkpoint["aptlab"])
        validated = self._validated == step
        loops.rewrite_fit_loop(checkpoint["loops"]["fit_loop"], trainer, step=step, validated=validated)
        self._unfinished = None if validated or not loops.is_validation_due(trainer, step) else step

    def _forget_other_best(self, entry: Mapping[str, Any]) -> None:
        """Begin anew with the best where what the checkpoint's run measured cannot be compared with what this one does.

        entry  the "aptlab" entry of the checkpoint
        """
        config = self.describe().get("config") or {}
        monitor, mode = entry.get("monitor", self.monitor), entry.get("mode", self.mode)
        old = describe_measure(monitor, mode, entry.get("config") or config)
        change = find_measure_change(old, describe_measure(self.monitor, self.mode, config))
        if change is None:
            return
        if self._best is not None:
            log.info("the best %s so far, %.4g, does not count: %s", monitor, self._best, change)
        self._metric = self._best = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A run that was stopped in its very last validation has no step left, but the validation."""
        loop = trainer.fit_loop.epoch_loop
        if self._unfinished is not None and 0 < loop.max_steps <= self._unfinished:
            self._max_steps, loop.max_steps = loop.max_steps, self._unfinished + 1

    # The clock

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        start = Path(trainer.ckpt_path) if trainer.ckpt_path is not None else None
        self._foreign = set(list_checkpoints(self.directory))
        if start is not None and start.parent.absolute() == self.directory.absolute():
            self._saved, self.last = self._state(trainer), start
            self._foreign = {path for path in self._foreign if (parse_checkpoint_step(path) or 0) > trainer.global_step}

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx % trainer.accumulate_grad_batches:
            return
        step = trainer.global_step
        due = step % self.every == 0 or (self._improved and self._validated == step)
        if not due or step in (self._tried, 0):
            return
        stops = self.on_error == "stop"
        problem = self._save(trainer, spend=stops, waits=WAITS if stops else ())
        if problem and stops:
            self._end(trainer, f"stopped at step {step}, which {self._describe_failure(trainer, problem)}")
        self._warn(trainer, problem)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        if self._max_steps is not None:
            trainer.fit_loop.epoch_loop.max_steps, self._max_steps = self._max_steps, None
        value = trainer.callback_metrics.get(self.monitor)
        if value is None and self.keep_best and not self._named_monitor:
            self._named_monitor = True
            have = ", ".join(sorted(trainer.callback_metrics)) or "nothing"
            log.warning("no checkpoint is kept as the best: %s is not measured; there are: %s", self.monitor, have)
        self._validated, self._metric = trainer.global_step, None if value is None else float(value)
        if self._better(self._metric) and has_finite_weights(pl_module):
            self._best, self._improved = self._metric, self.keep_best > 0
        elif self._better(self._metric):
            log.warning("step %d: the weights hold a number that is not finite; it is not the best", self._validated)
            self._metric = None

    def _better(self, value: float | None) -> bool:
        if value is None or not math.isfinite(value):
            return False
        return self._best is None or (value < self._best if self.mode == "min" else value > self._best)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        step = trainer.global_step
        problem = self._save(trainer, spend=True, waits=WAITS) if step > 0 else None
        if problem and self._saved != self._state(trainer):
            nothing = f"no checkpoint could be written to {self.directory}: {problem.message}"
            unsaved = f"its last step {step} {self._describe_failure(trainer, problem)}"
            self._end(trainer, f"training ended, but {unsaved if list_checkpoints(self.directory) else nothing}")
        self._warn(trainer, problem)
        self._release(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._release(trainer)

    def _release(self, trainer: Trainer) -> None:
        if trainer.is_global_zero and self.folder is not None:
            release_reserve(self.directory)

    def _end(self, trainer: Trainer, message: str) -> None:
        """End the run on all ranks; one of them tells why, for launchers kill rank zero when another one "fails"."""
        error = UnsavedError(message if trainer.is_global_zero else "")
        error.exit_code = error.exit_code if trainer.is_global_zero else 0
        raise error

    def _describe_failure(self, trainer: Trainer, problem: SaveProblem) -> str:
        """What follows on `step 40`."""
        if self._saved == self._state(trainer):
            return (
                f"is saved in the space that was held for it, for {problem.message}; once there is space, go on with: "
                f"{write_resume_command(self.directory.parent)}"
            )
        return f"was not saved: {problem.message}; {describe_last_saved(self.directory)}"

    # The files

    def save(self, trainer: Trainer) -> bool:
        """Save the state after the last optimizer step before the run ends, on all ranks together; whether that worked.

        Nothing is written twice, except that a checkpoint made before a validation ended is replaced after it.
        """
        problem = self._save(trainer, spend=True)
        self._warn(trainer, problem)
        return self._saved == self._state(trainer)

    def _warn(self, trainer: Trainer, problem: SaveProblem | None) -> None:
        if problem and trainer.is_global_zero:
            log.warning("step %d %s", trainer.global_step, self._describe_failure(trainer, problem))

    def _save(self, trainer: Trainer, *, spend: bool, waits: Sequence[float] = ()) -> SaveProblem | None:
        """What was wrong, also where the space that is held was spent on the save in the end.

        spend  whether it may be
        waits  seconds before further attempts, where the system refuses
        """
        state = self._state(trainer)
        if state == self._saved:
            return None
        self._tried = trainer.global_step
        path = self.directory / format_checkpoint_name(trainer.global_step)
        for logger in trainer.loggers:
            logger.save()  # a kill after this save loses no number of the steps before it
        options = SaveOptions(weights=list_trained_weights(trainer.lightning_module))
        problem = attempt_save(trainer, path, options)
        if problem and problem.poison:
            self._end_poisoned(trainer, problem.poison)
        if problem and problem.missing and self._make_room(trainer, problem.missing):
            problem = attempt_save(trainer, path, options)
        for seconds in waits:
            if problem and problem.passing:
                time.sleep(seconds)
                problem = attempt_save(trainer, path, options)
        held = spend and problem is not None and trainer.strategy.broadcast(measure_reserve(self.directory) > 0)
        if problem is None or (held and attempt_save(trainer, path, SaveOptions(spend=True)) is None):
            self._saved, self._improved, self.last = state, False, path
            if trainer.is_global_zero:
                self._begin_anew()
                self._prune()
                self._hold(path, spent=problem is not None)
        return problem

    def _begin_anew(self) -> None:
        """An earlier end of the run is history; where the disk is full, that is noted after the next save."""
        try:
            self._replace_end()
        except (AptlabError, OSError) as error:
            log.warning("the checkpoint is saved, but not that the run goes on: %s", error)

    def _make_room(self, trainer: Trainer, missing: int) -> bool:
        """Whether rank zero could free so many bytes."""
        done = trainer.is_global_zero and make_room(self.directory, missing, [*self._list_best(), self.last])
        return trainer.strategy.broadcast(done)

    def _hold(self, path: Path, *, spent: bool) -> None:
        """Hold the space of one more checkpoint like this one."""
        if not self.reserve:
            release_reserve(self.directory)
        elif not spent and (problem := hold_reserve(self.directory, path.stat().st_size)) != self._unheld:
            self._unheld = problem
            if problem:
                log.warning("no space is held for the last checkpoint of the run: %s", problem)

    def _end_poisoned(self, trainer: Trainer, poison: str) -> None:
        """Keep the state aside, and end the run: what is not finite stays so."""
        aside = set_poisoned_aside(trainer, self.directory)
        kept = f"kept aside as {aside.name}" if aside else "not kept"
        raise TrainingError(
            f"step {trainer.global_step}: numbers that are not finite are in {poison}, which training cannot mend; the "
            f"state is {kept}; {advise_good_checkpoint(self.directory)}"
        )

    def _state(self, trainer: Trainer) -> tuple[int, bool]:
        step = trainer.global_step
        return step, self._validated == step or not loops.is_validation_due(trainer, step)

    def _prune(self) -> None:
        """Remove what is neither new nor best, and what another start or continuation of the run left here."""
        files = list_checkpoints(self.directory)
        foreign = [path for path in files if path in self._foreign and path != self.last]
        if foreign:
            log.info("removed checkpoints of an earlier way of this run: %s", ", ".join(path.name for path in foreign))
        self._foreign = set()
        valid = [path for path in files if path not in foreign and is_valid(path, deep=False)]
        keepers = {*valid[-self.keep :], *self._list_best(valid)}
        for path in files:
            if path not in keepers:
                delete_checkpoint(path)
                inject_fault("save.after_prune")

    def _list_best(self, files: Iterable[Path] | None = None) -> list[Path]:
        """The best ones of the files, or of all, by each measure."""
        files = list_checkpoints(self.directory) if files is None else files
        return [one.path for rated in rate_checkpoints(files).values() for one in rated[: self.keep_best]]


def _check(name: str, value: Any, kind: Any) -> None:
    limit = find_limit(kind)
    problem = limit.problem(value) if limit else None
    if problem:
        raise ConfigError(f"{name} {problem}")
