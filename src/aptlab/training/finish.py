"""The end of a run: what is known is written first, then the evals are measured and the result is completed."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from aptlab.callbacks.progress import find_monitor
from aptlab.errors import EvalError
from aptlab.report.figure import draw_run_figure
from aptlab.runs import Result, find_runs
from aptlab.runs.progress import format_duration
from aptlab.shown import print_shown
from aptlab.tasks.base import count_parameters
from aptlab.training.evaluate import run_evals, write_title
from aptlab.training.labels import label_choices
from aptlab.training.state import TrainRun, describe_ran

METRICS = ("val/loss", "val/ppl", "val/bpb", "train/loss")
DATA = ("name", "fingerprint", "train_tokens", "val_tokens")


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
    measuring = f"; measuring {', '.join(run.evals)} …" if run.evals else ""
    print_shown(f"trained to step {run.trainer.global_step} in {format_duration(wall)}{measuring}", flush=True)
    ends = run_evals(run)
    result = dataclasses.replace(result, lengths=ends.lengths, evals=ends.plain())
    figure = draw_training_figure(run, ends.lengths)
    for logger in run.loggers:
        logger.log_result(result.plain())
        logger.log_figure(figure)
    run.folder.write_result(result)
    print_shown(f"figure   {figure}\nrun      {run.folder}")
    if ends.failed:
        raise EvalError(write_failure(run, ends.failed))


def write_failure(run: TrainRun, failed: dict[str, str]) -> str:
    """What is safe, what failed, and how to measure it again."""
    lines = [f"the run is trained and saved in {run.folder}, but {len(failed)} of its evals failed:"]
    for key, message in failed.items():
        again = f"aptlab eval ckpt={run.folder} eval={run.evals[key].name}"
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
    measured = {name: value for name, value in latest.items() if name.startswith(("val/", "train/"))}
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
        data={name: data[name] for name in DATA} if "train_tokens" in data else data,
        metrics={name: latest.get(name) for name in METRICS} | measured,
    )
