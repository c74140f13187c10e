"""How far the run is: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from aptlab.callbacks.lookup import find_callbacks
from aptlab.callbacks.monitor import Monitor
from aptlab.limits import Positive, PositiveInt

SHORT = {"tokens": "tok"}
VALIDATION = {"val/ppl": "perplexity {:.3f}", "val/bpb": "{:.4f} bits per byte"}  # what a language task logs too


def format_duration(seconds: float) -> str:
    """63 -> 1:03, 3700 -> 1:01:40."""
    minutes, rest = divmod(round(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class TrainProgress(Callback):
    """Show step, loss, speed and the time left; `lines` plain lines a run where there is no terminal.

    The numbers are the Monitor's latest, so that showing them costs no wait for the device.
    """

    def __init__(self, *, refresh: Positive = 0.2, lines: PositiveInt = 20) -> None:
        self.refresh, self.lines = refresh, lines
        self._bar: Any = None
        self._task: Any = None
        self._shown = 0.0
        self._begun = 0.0
        self._first = 0
        self._printed = -1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begun, self._first = time.monotonic(), trainer.global_step
        if not trainer.is_global_zero or not sys.stdout.isatty():
            return
        from rich.progress import BarColumn, Progress, TextColumn

        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[numbers]}"),
            refresh_per_second=5,
            expand=True,
        )
        self._task = self._bar.add_task("train", total=trainer.max_steps, numbers="")
        self._bar.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step, now = trainer.global_step, time.monotonic()
        if self._bar is not None and (now - self._shown > self.refresh or step == trainer.max_steps):
            self._shown = now
            self._bar.update(self._task, completed=step, numbers=self._numbers(trainer))
        elif self._bar is None and trainer.is_global_zero:
            self._line(trainer, step)

    def _line(self, trainer: Trainer, step: int) -> None:
        every = max(1, trainer.max_steps // self.lines)
        if step != self._printed and (step % every == 0 or step == trainer.max_steps) and step > self._first:
            self._printed = step
            print(self._numbers(trainer), flush=True)

    def _numbers(self, trainer: Trainer) -> str:
        step, monitor = trainer.global_step, find_monitor(trainer)
        latest = monitor.latest
        parts = [f"step {step}/{trainer.max_steps}"]
        if "train/loss" in latest:
            parts.append(f"loss {latest['train/loss']:.3f}")
        if "val/loss" in latest:
            parts.append(f"val {latest['val/loss']:.3f}")
        if (speed := f"{monitor.unit}_per_second") in latest:
            parts.append(f"{latest[speed]:,.0f} {SHORT.get(monitor.unit, monitor.unit)}/s")
        done = step - self._first
        if done:
            elapsed = time.monotonic() - self._begun
            parts.append(f"ETA {format_duration(elapsed / done * (trainer.max_steps - step))}")
        return "  ".join(parts)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        latest = find_monitor(trainer).latest
        if trainer.sanity_checking or not trainer.is_global_zero or "val/loss" not in latest:
            return
        parts = [f"step {trainer.global_step}", f"validation: loss {latest['val/loss']:.4f}"]
        parts += [text.format(latest[key]) for key, text in VALIDATION.items() if key in latest]
        line = "  ".join(parts)
        if self._bar is not None:
            self._bar.console.print(line, highlight=False)
        else:
            print(line, flush=True)

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._stop()


def find_monitor(trainer: Trainer) -> Monitor:
    """The run's Monitor; one that has seen nothing when the config took it out."""
    found = find_callbacks(trainer, Monitor)
    return found[0] if found else Monitor()
