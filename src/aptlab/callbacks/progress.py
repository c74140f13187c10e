"""How far a training run is: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from aptlab.callbacks.lookup import find_callbacks
from aptlab.callbacks.monitor import Monitor
from aptlab.limits import Positive, PositiveInt
from aptlab.runs.progress import ProgressBar

SHORT = {"tokens": "tok"}
VALIDATION = {"val/ppl": "perplexity {:.3f}", "val/bpb": "{:.4f} bits per byte"}  # what a language task logs too


class TrainProgress(Callback):
    """Show step, loss, speed and the time left; `lines` plain lines a run where there is no terminal.

    A plain line has the mean loss since the Monitor's last line, for which it waits for the device; with several ranks,
    whose losses only the Monitor gathers, lines come where it logs. A bar has the Monitor's latest numbers, and the
    step of each that is not of this one.
    """

    def __init__(self, *, refresh: Positive = 0.2, lines: PositiveInt = 20) -> None:
        self.refresh, self.lines = refresh, lines
        self._bar: ProgressBar | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            done, total = trainer.global_step, trainer.max_steps
            self._bar = ProgressBar("step", total=total, done=done, lines=self.lines, refresh=self.refresh).start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._bar is not None:
            monitor, step = find_monitor(trainer), trainer.global_step
            if self._bar.on_terminal:
                note = functools.partial(format_latest_numbers, monitor, step)
            else:
                note = functools.partial(format_fresh_numbers, monitor, step, alone=trainer.world_size == 1)
            self._bar.update(step, note)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        latest = find_monitor(trainer).latest
        if trainer.sanity_checking or self._bar is None or "val/loss" not in latest:
            return
        parts = [f"step {trainer.global_step}", f"validation: loss {latest['val/loss']:.4f}"]
        parts += [form.format(latest[name]) for name, form in VALIDATION.items() if name in latest]
        self._bar.print_line("  ".join(parts))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()


def format_fresh_numbers(monitor: Monitor, step: int, *, alone: bool) -> str | None:
    """Loss and speed up to this step; None where they are known later, at the Monitor's next line."""
    if monitor.logged == step:
        return format_training_numbers(monitor.latest, monitor.unit)
    if not monitor.counts_batches:  # the config took it out
        return ""
    return format_training_numbers(monitor.measure_running(), monitor.unit) if alone else None


def format_latest_numbers(monitor: Monitor, step: int) -> str:
    """The latest loss, validation loss and speed, with the step of each that is of an earlier one."""
    parts = [(format_training_numbers(monitor.latest, monitor.unit), monitor.logged)]
    if "val/loss" in monitor.latest:
        parts.append((f"val {monitor.latest['val/loss']:.3f}", monitor.validated))
    return "  ".join(text if at == step else f"{text} (step {at:,})" for text, at in parts if text and at is not None)


def format_training_numbers(latest: Mapping[str, float], unit: str) -> str:
    """Loss and speed in the task's own unit, as far as they were measured."""
    speed = f"{{:,.0f}} {SHORT.get(unit, unit)}/s"
    forms = {"train/loss": "loss {:.3f}", f"{unit}_per_second": speed}
    return "  ".join(form.format(latest[name]) for name, form in forms.items() if name in latest)


def find_monitor(trainer: Trainer) -> Monitor:
    """The run's Monitor; one that has seen nothing when the config took it out."""
    found = find_callbacks(trainer, Monitor)
    return found[0] if found else Monitor()
