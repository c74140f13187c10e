"""The score matrix of a scenario: every task measured before training, and where each of them ends.

Legend: K tasks, R[i][j] the score on task j after training task i.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from aptlab.callbacks.base import RunAware, RunContext
from aptlab.callbacks.evaluating import evaluate_quietly
from aptlab.callbacks.lookup import get_datamodule
from aptlab.callbacks.monitor import log_numbers
from aptlab.callbacks.progress import find_monitor
from aptlab.continual.metrics import compute_scores
from aptlab.data.tasks import TaskData
from aptlab.limits import PositiveInt
from aptlab.runs.record import write_json_record

log = logging.getLogger("aptlab")
RECORD = "tasks.json"
VERSION = 1


class TaskScores(RunAware, Callback):
    """Measure every task of a scenario before training, at the end of each task, and every `every` steps.

    R and the scores before training are in the checkpoint, and in tasks.json of the run's folder as soon as they are
    measured. `tasks/<name>` are the scores in metrics.csv; `tasks/acc` and the other numbers of
    `aptlab.continual.metrics` follow with the last row. Nothing is measured where the data are no tasks.

    every  optimizer steps between further measurements, for curves; None: at the ends alone
    """

    def __init__(self, *, every: PositiveInt | None = None) -> None:
        self.every = every
        self.folder: Path | None = None
        self.baseline: list[float] = []
        self.matrix: list[list[float]] = []
        self.points: list[dict[str, Any]] = []  # {"step", "scores"}, one for each measurement

    def attach(self, run: RunContext) -> None:
        """Where to write."""
        self.folder = run.folder

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data = get_datamodule(trainer)
        if not isinstance(data, TaskData):
            return
        assert data.clock is not None
        step = trainer.global_step
        ended = data.clock.find_ended(step)
        missing = ended is not None and len(self.matrix) <= ended  # saved before it was measured
        if missing or not self.points:
            self._measure(trainer, pl_module, data, step, ended=ended)
        self._write(trainer, data)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        data, step = get_datamodule(trainer), trainer.global_step
        if not isinstance(data, TaskData) or (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        assert data.clock is not None
        ended = data.clock.find_ended(step)
        due = ended is not None or (self.every is not None and step % self.every == 0)
        if due and self.points[-1]["step"] < step:
            self._measure(trainer, pl_module, data, step, ended=ended)

    def _measure(
        self, trainer: Trainer, pl_module: LightningModule, data: TaskData, step: int, *, ended: int | None = None
    ) -> None:
        scores = [measure_task(trainer, pl_module, data, task) for task in range(len(data.task_names))]
        self.points.append({"step": step, "scores": scores})
        numbers = {f"tasks/{name}": score for name, score in zip(data.task_names, scores, strict=True)}
        if step == 0:
            self.baseline = scores
        if ended is not None:
            self.matrix.append(scores)
            told = ", ".join(f"{name} {score:.4g}" for name, score in zip(data.task_names, scores, strict=True))
            log.info("end of task %s at step %d: %s", data.task_names[ended], step, told)
        if len(self.matrix) == len(data.task_names) and ended is not None:
            found = compute_scores(self.matrix, self.baseline or None).plain()
            numbers |= {f"tasks/{name}": value for name, value in found.items() if value is not None}
        find_monitor(trainer).latest.update(numbers)
        log_numbers(trainer, numbers, step)
        self._write(trainer, data)

    def _write(self, trainer: Trainer, data: TaskData) -> None:
        """Replace tasks.json, which a resumed run that stood behind it writes anew."""
        if self.folder is None or not trainer.is_global_zero:
            return
        task: Any = trainer.lightning_module
        facts = {
            "version": VERSION,
            "score": task.score_name,
            "tasks": list(data.task_names),
            "ends": list(data.clock.ends) if data.clock else [],
            "joint": data.scenario.joint,
        }
        write_json_record(self.folder / RECORD, {**facts, **self.state_dict()})

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers."""
        return {"baseline": self.baseline, "matrix": self.matrix, "points": self.points}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.baseline, self.matrix = list(state_dict["baseline"]), [list(row) for row in state_dict["matrix"]]
        self.points = [dict(point) for point in state_dict["points"]]


def measure_task(trainer: Trainer, task: Any, data: TaskData, number: int) -> float:
    """The score on the validation rows of a task, over all ranks; the network's mode is what it was afterwards."""
    sums = torch.zeros(task.validation_sums, dtype=torch.float64, device=task.device)
    with evaluate_quietly(trainer, task):
        for batch in data.open_task_loader(number):
            moved = trainer.strategy.batch_to_device(batch)
            sums += task.sum_validation(task(moved), moved)
    if trainer.world_size > 1:
        sums = trainer.strategy.reduce(sums, reduce_op="sum")
    return task.score_sums(sums.tolist())
