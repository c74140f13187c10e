"""A training run from its plan to its result."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from aptlab.callbacks.lookup import find_callbacks
from aptlab.callbacks.progress import find_monitor
from aptlab.callbacks.saving import describe_last_saved
from aptlab.callbacks.stop import GracefulStop
from aptlab.loggers import RunLogger
from aptlab.runs import RunFolder, RunLog
from aptlab.runs.commands import write_command_from
from aptlab.runs.ranks import get_process_rank
from aptlab.runs.signals import SignalReceived, Stopped
from aptlab.shown import print_shown
from aptlab.training.announce import announce_run
from aptlab.training.assemble import assemble_parts, open_run
from aptlab.training.finish import finish_run, keep_trained
from aptlab.training.plan import TrainPlan, describe_planned_end
from aptlab.training.ranks import watch_ranks
from aptlab.training.state import ResumePoint, TrainRun

SIGTERM_CODE = 143
CKPT_VARIABLE = "APTLAB_CKPT"


def run_training(plan: TrainPlan) -> Path:
    """Train as planned; returns the run folder. Only rank zero writes and reports."""
    cfg = plan.config.cfg
    with RunLog.start(None, console=get_process_rank() == 0):
        parts = assemble_parts(plan)
        if parts.resume and (ended := describe_planned_end(plan, parts.resume.step, parts.trainer_args["max_steps"])):
            if get_process_rank() == 0:
                print_shown(ended, flush=True)
            return Path(cfg.run_dir)
        folder = RunFolder.create(root=cfg.paths.root, job=cfg.job, run_dir=cfg.run_dir)
        log = RunLog.start(folder.path if folder.writer else None, console=folder.writer)
        with folder, log, share_checkpoint_path(plan.ckpt):
            run = open_run(parts, folder)
            with close_loggers(run.loggers):
                announce_run(run, (*plan.notes, *list_resume_notes(run, parts.resume)))
                with contextlib.ExitStack() as watched:
                    watched.enter_context(watch_ranks(run.trainer))
                    with tell_unanswered_signal(run, parts.resume):
                        wall = fit_run(run, parts.resume)
                    with keep_trained(run):
                        validate_final_weights(run)
                        watched.close()  # from here on no rank needs another
                        finish_run(run, wall=wall)
    return folder.path


def fit_run(run: TrainRun, resume: ResumePoint | None) -> float:
    """Train to the last step; returns the seconds it took."""
    begun = time.perf_counter()
    run.trainer.fit(run.task, datamodule=run.data, ckpt_path=resume.path if resume else None)
    return time.perf_counter() - begun


def list_resume_notes(run: TrainRun, resume: ResumePoint | None) -> tuple[str, ...]:
    """Lines about the checkpoint that is gone on from."""
    if resume is None:
        return ()
    done = f"trained to step {resume.step:,} already; what is missing is its report"
    return (*resume.notes, done) if resume.step >= run.trainer.max_steps else resume.notes


@contextlib.contextmanager
def tell_unanswered_signal(run: TrainRun, resume: ResumePoint | None) -> Iterator[None]:
    """Where a signal comes and callbacks.stop does not answer it: before the first batch, or it is not there."""
    try:
        yield
    except SignalReceived as received:
        step = run.trainer.global_step
        if step == 0:
            raise
        if not run.trainer.is_global_zero:
            raise Stopped(exit_code=0) from None
        if resume is not None and step == resume.step:
            told = (
                f"stopped by {received.name} before the first new step, so there is nothing new to save; step {step:,} "
                f"is saved in {resume.path}; go on with: {write_command_from(resume.path)}"
            )
        else:
            last = describe_last_saved(run.folder.checkpoints)
            told = f"stopped by {received.name} at step {step:,}, and callbacks.stop is not there to save it; {last}"
        raise Stopped(told, received.exit_code) from None


def validate_final_weights(run: TrainRun) -> None:
    """Measure the final weights too where the last interval was not full."""
    trainer = run.trainer
    for stop in find_callbacks(trainer, GracefulStop):
        if stop.received:  # after the last place where it looked
            raise SignalReceived(stop.received)
    if trainer.enable_validation and find_monitor(trainer).validated != trainer.global_step:
        trainer.validate(run.task, datamodule=run.data, verbose=False)


@contextlib.contextmanager
def share_checkpoint_path(ckpt: Path | None) -> Iterator[None]:
    """Tell the ranks which checkpoint is meant: they must not look for "the last one" again."""
    if ckpt is None:
        yield
        return
    before = os.environ.get(CKPT_VARIABLE)
    os.environ[CKPT_VARIABLE] = str(ckpt)
    try:
        yield
    finally:
        os.environ.pop(CKPT_VARIABLE)
        if before is not None:
            os.environ[CKPT_VARIABLE] = before


@contextlib.contextmanager
def close_loggers(loggers: list[RunLogger]) -> Iterator[None]:
    """Close what tracks the run, however it ends; a preempted run is marked as one."""
    code = 1
    try:
        yield
        code = 0
    except BaseException as error:
        code = getattr(error, "exit_code", 1)
        raise
    finally:
        for logger in loggers:
            if code == SIGTERM_CODE:
                logger.mark_preempting()
            logger.close(code)
