"""How far a training run is: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

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

    The numbers are the Monitor's latest, so that showing them costs no wait for the device.
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
            monitor = find_monitor(trainer)
            self._bar.update(trainer.global_step, format_training_numbers(monitor.latest, monitor.unit))

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


def format_training_numbers(latest: dict[str, float], unit: str) -> str:
    """Loss, validation loss and speed in the task's own unit, as far as they were measured."""
    speed = f"{{:,.0f}} {SHORT.get(unit, unit)}/s"
    forms = {"train/loss": "loss {:.3f}", "val/loss": "val {:.3f}", f"{unit}_per_second": speed}
    return "  ".join(form.format(latest[name]) for name, form in forms.items() if name in latest)


def find_monitor(trainer: Trainer) -> Monitor:
    """The run's Monitor; one that has seen nothing when the config took it out."""
    found = find_callbacks(trainer, Monitor)
    return found[0] if found else Monitor()
