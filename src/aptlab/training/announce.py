"""What a run says at its start: folder, choices, data, model and budget."""

from __future__ import annotations

from typing import Any

from aptlab.shown import count_nouns, print_shown
from aptlab.tasks.base import count_parameters
from aptlab.training.labels import label_choices, select_shown_choices
from aptlab.training.protocols import LongRowData, RowData
from aptlab.training.state import TrainRun


def announce_run(run: TrainRun, notes: tuple[str, ...]) -> None:
    """Print everything that is known before the first step; rank zero only."""
    if not run.folder.writer:
        return
    choices = label_choices(run.config, count_parameters(run.task.net))
    parts = "  ".join(f"{group}={option}" for group, option in select_shown_choices(choices).items())
    lines = [*notes, f"run      {run.folder}", f"parts    {parts}", describe_data(run.data.summary())]
    print_shown("\n".join([*lines, *describe_model(run), describe_budget(run)]), flush=True)


def describe_data(summary: dict[str, Any]) -> str:
    """One line: name and sizes of the data."""
    counts = dict(summary)
    if "train_tokens" in counts:
        documents = count_nouns(counts["train_documents"] + counts["val_documents"], "document")
        if counts.get("split", "by documents") != "by documents":
            documents = f"split {counts['split']}"  # whose parts are on both sides
        return (
            f"data     {counts['name']}: {documents}, {counts['train_tokens']:,} tokens to train on, "
            f"{counts['val_tokens']:,} to validate"
        )
    sizes = [f"{value:,} {key.replace('_', ' ')}" for key, value in counts.items() if isinstance(value, int)]
    return f"data     {counts['name']}{': ' if sizes else ''}{', '.join(sizes)}"


def describe_model(run: TrainRun) -> list[str]:
    """Parameters of the network and of each part of it, and what a unit costs to train."""
    task = run.task
    flops = task.estimate_training_flops(run.config.cfg.context)
    cost = f", {flops / 1e6:,.1f} MFLOPs per {task.unit.removesuffix('s')} to train" if flops else ""
    rows = [f"model    {count_parameters(task.net):,} parameters{cost}"]
    return rows + [f"         {name:<28}{size:>14,}" for name, size in task.count_part_parameters()]


def describe_budget(run: TrainRun) -> str:
    """Steps, units and work of the whole run, and on what it runs."""
    trainer, task = run.trainer, run.task
    place = f"{trainer.precision} on {trainer.world_size} {trainer.strategy.root_device.type}"
    if not isinstance(run.data, RowData):
        return f"budget   {count_nouns(trainer.max_steps, 'step')}, {place}"
    row = run.data.row_tokens if isinstance(run.data, LongRowData) else run.data.context
    step = trainer.accumulate_grad_batches * run.data.batch * row * trainer.world_size
    whole, flops = trainer.max_steps * step, task.estimate_training_flops(run.config.cfg.context)
    return (
        f"budget   {count_nouns(trainer.max_steps, 'step')} x {step:,} {task.unit} = {whole:,} {task.unit}, "
        f"{whole * flops / 1e12:,.1f} TFLOPs, {place}"
    )
