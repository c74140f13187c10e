"""How far a training run is: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from aptlab.callbacks.monitor import Monitor
from aptlab.limits import Positive, PositiveInt
from aptlab.runs.progress import ProgressBar


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
            self._bar.update(trainer.global_step, format_training_numbers(find_monitor(trainer).latest))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        latest = find_monitor(trainer).latest
        if trainer.sanity_checking or self._bar is None or "val/loss" not in latest:
            return
        self._bar.print_line(
            f"step {trainer.global_step}  validation: loss {latest['val/loss']:.4f}  "
            f"perplexity {latest['val/ppl']:.3f}  {latest['val/bpb']:.4f} bits per byte"
        )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()


def format_training_numbers(latest: dict[str, float]) -> str:
    """Loss, validation loss and speed, as far as they were measured."""
    forms = {"train/loss": "loss {:.3f}", "val/loss": "val {:.3f}", "tokens_per_second": "{:,.0f} tok/s"}
    return "  ".join(form.format(latest[name]) for name, form in forms.items() if name in latest)


def find_monitor(trainer: Trainer) -> Monitor:
    """The run's Monitor; one that has seen nothing when the config took it out."""
    found = [callback for callback in trainer.callbacks if isinstance(callback, Monitor)]  # type: ignore[attr-defined]
    return found[0] if found else Monitor()
