"""The end of a run: what is known is written first, then the evals are measured and the result is completed."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aptlab.callbacks.checkpoints import Checkpoints
from aptlab.callbacks.lookup import find_callbacks
from aptlab.callbacks.progress import find_monitor
from aptlab.callbacks.saving import find_newest_checkpoint
from aptlab.checkpoint.manifest import parse_checkpoint_step
from aptlab.errors import FULL, AptlabError, EvalError
from aptlab.faults import inject_fault
from aptlab.report.figure import draw_run_figure
from aptlab.runs import Result, find_runs
from aptlab.runs.commands import list_lasting_words, write_command, write_resume_command
from aptlab.runs.progress import format_duration
from aptlab.runs.signals import SignalReceived, Stopped
from aptlab.shown import print_shown
from aptlab.tasks.base import count_parameters
from aptlab.training.curriculum import draw_curriculum_figure
from aptlab.training.evaluate import run_evals, write_title
from aptlab.training.labels import label_choices
from aptlab.training.state import TrainRun, describe_ran

METRICS = ("val/loss", "val/ppl", "val/bpb", "train/loss")
DATA = ("name", "fingerprint", "val_text", "train_tokens", "val_tokens")


def finish_run(run: TrainRun, *, wall: float) -> None:
    """Write result.json, measure the evals, complete result.json and draw the figure; rank zero only.

    An eval that fails costs nothing else: weights and numbers are on disk before the first one begins. Raises EvalError
    when all is written, naming those that failed.
    """
    if not run.trainer.is_global_zero:
        return
    for logger in run.loggers:
        logger.save()
    result = make_result(run)
    run.folder.write_result(dataclasses.replace(result, status="trained"))
    inject_fault("report.begin")
    measuring = f"; measuring {', '.join(run.evals)} …" if run.evals else ""
    print_shown(f"trained to step {run.trainer.global_step} in {format_duration(wall)}{measuring}", flush=True)
    ends = run_evals(run)
    result = dataclasses.replace(result, lengths=ends.lengths, evals=ends.plain())
    figure = draw_training_figure(run, ends.lengths)
    figures = [figure, *([timeline] if (timeline := draw_curriculum_figure(run)) else [])]
    for logger in run.loggers:
        logger.log_result(result.plain())
        for path in figures:
            logger.log_figure(path, path.stem)
    inject_fault("report.end")
    run.folder.write_result(result)
    print_shown("\n".join([*(f"figure   {path}" for path in figures), f"run      {run.folder}"]))
    if ends.failed:
        raise EvalError(write_failure(run, ends.failed))


@contextlib.contextmanager
def keep_trained(run: TrainRun) -> Iterator[None]:
    """What comes after the last step: a signal or a full disk there costs the report alone, which the next start makes.

    Raises Stopped or EvalError, which say so.
    """
    try:
        yield
    except SignalReceived as received:
        told = describe_missing_report(run, f"stopped by {received.name}") if run.trainer.is_global_zero else ""
        raise Stopped(told, received.exit_code if told else 0) from None
    except EvalError:
        raise
    except (AptlabError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in FULL:
            raise
        why = (
            f"cannot write {error.filename or 'to the disk'}: {error.strerror}" if isinstance(error, OSError) else error
        )
        raise EvalError(describe_missing_report(run, str(why))) from error


def describe_missing_report(run: TrainRun, why: str) -> str:
    """What is known of the trained run goes into result.json; what to say of it, and how to go on."""
    with contextlib.suppress(AptlabError, OSError):  # the disk may be full: the checkpoint tells the same
        run.folder.write_result(dataclasses.replace(make_result(run), status="trained"))
    step = run.trainer.global_step
    savers = find_callbacks(run.trainer, Checkpoints)
    saved = [saver.last or find_newest_checkpoint(saver.directory) for saver in savers]
    if not any(path is not None and parse_checkpoint_step(path) == step for path in saved):
        return f"{why}: the run is trained to step {step}, and there is no checkpoint of it"
    return (
        f"{why}: the run is trained to step {step} and saved, its report is not finished; finish it with: "
        f"{write_resume_command(run.folder)}"
    )


def write_failure(run: TrainRun, failed: dict[str, str]) -> str:
    """What is safe, what failed, and how to measure it again."""
    lines = [f"the run is trained and saved in {run.folder}, but {len(failed)} of its evals failed:"]
    for key, message in failed.items():
        again = write_command("eval", f"ckpt={run.folder}", f"eval={run.evals[key].name}", *list_lasting_words("data."))
        lines.append(f"  evals.{key}: {message}; measure it again with: {again}")
    return "\n".join(lines)


def draw_training_figure(run: TrainRun, lengths: list[dict[str, Any]]) -> Path:
    """figure.png: the curves of metrics.csv, and the loss by length where it was measured."""
    metrics = find_runs([run.folder.path])[0].metrics()
    title = write_title(run, run.trainer.global_step)
    path = run.folder / "figure.png"
    return draw_run_figure(metrics, lengths, title=title, path=path, context=run.config.cfg.context)


def make_result(run: TrainRun) -> Result:
    """The result before any eval: what was asked, what ran, and the numbers of the training itself."""
    config, trainer, monitor = run.config, run.trainer, find_monitor(run.trainer)
    latest, data = monitor.latest, run.data.summary()
    units = monitor.tokens * trainer.world_size
    measured = {name: value for name, value in latest.items() if name.startswith(("val/", "train/", "tasks/"))}
    parameters = count_parameters(run.task.net)
    return Result(
        job=config.cfg.job,
        seed=config.cfg.seed,
        choices=label_choices(config, parameters),
        overrides=list(config.overrides),
        config_hash=run.config_hash,
        ran=describe_ran(trainer),
        steps=trainer.global_step,
        tokens=units,
        unit=run.task.unit,
        seconds=monitor.seconds,
        tokens_per_second=units / max(monitor.seconds, 1e-9),
        parameters=parameters,
        origin=run.origin,
        flops_per_token=run.task.estimate_training_flops(config.cfg.context),
        context=config.cfg.context,
        skipped_steps=int(latest.get("skipped_steps", 0)),
        data={name: data[name] for name in DATA if name in data} if "train_tokens" in data else data,
        metrics={name: latest.get(name) for name in METRICS} | measured,
    )
