"""The clock of a curriculum: asks the model what the schedule wants to know, and keeps what it decided.

Legend: B rows of a micro-batch, T tokens, V outputs.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer

from aptlab.callbacks.base import RunAware, RunContext
from aptlab.callbacks.lookup import get_datamodule
from aptlab.callbacks.monitor import log_numbers
from aptlab.callbacks.probing import ProbeMeter
from aptlab.checkpoint.plain import pack_arrays, unpack_arrays
from aptlab.curriculum import Clock, Curriculum, RandomOrder, RowSchedule
from aptlab.curriculum.base import Answer, Probe
from aptlab.curriculum.scores import prepare_course
from aptlab.curriculum.sections import SectionedSchedule, open_schedule
from aptlab.data.rows.numbered import NumberedRows, OrderedData
from aptlab.limits import PositiveInt
from aptlab.objectives import get_step_state

MANY = 4096  # rows whose measurement is announced
log = logging.getLogger("aptlab")


class CurriculumOrder(RunAware, Callback):
    """Put training rows into the order of a curriculum; with curriculum=none nothing happens.

    Before each optimizer step the schedule is asked whether all rows of the step are written. Where it wants something
    measured first, every rank measures its share with the weights as they are, rank 0's numbers go to all, and all
    decide the same. The rows that are written, and all that further decisions need, are in the checkpoint, so that a
    resumed run trains on the same rows. What is probed is counted in the units of the task, against those trained on.

    Logs curriculum/… every `every` steps and wherever something was decided. Raises ConfigError for data that cannot be
    put into another order, or a checkpoint with another curriculum of the same name.
    """

    def __init__(self, rule: Curriculum | None = None, *, seed: int = 0, every: PositiveInt = 10) -> None:
        self.rule, self.seed, self.every = rule or RandomOrder(), seed, every
        self.schedule: RowSchedule | None = None
        self.data: Any = None
        self.trained = 0  # units of all ranks
        self.timeline: list[dict[str, float]] = []  # what was logged where something was decided, by step
        self._meter = ProbeMeter()
        self._sides: dict[str, NumberedRows] = {}
        self._saved: Mapping[str, Any] | None = None
        self._before = ""  # digest of the difficulties that `_saved` was decided by; "": not known
        self._position = self._steps = 0

    @property
    def active(self) -> bool:
        """Whether there is an order to give."""
        return self.rule.orders

    @property
    def probed_share(self) -> float:
        """Units probed over units trained on."""
        return self._meter.units / max(1, self.trained)

    def attach(self, run: RunContext) -> None:
        """The data of the run."""
        self.data = run.data

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Measure difficulties, or read them, and give the data the order, before its first loader is made."""
        if stage != "fit" or not self.active:
            return
        data = self.data if self.data is not None else get_datamodule(trainer)
        # A run has said so before it had a folder.
        course = prepare_course(self.rule, data, seed=self.seed, warn=self.data is None)
        assert isinstance(data, OrderedData)  # or the course was refused
        self.data, self.schedule, self._steps = data, open_schedule(self.rule, course, data), trainer.max_steps
        self._sides = {side: data.number_rows(side) for side in ("train", *(["val"] if self.rule.needs_val else []))}
        data.set_order(self.schedule)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.schedule is None:
            return
        if self._saved is not None:
            self._warn_other_difficulties(self.schedule)
            self.schedule.load(self._saved)
            self._saved = None
        if trainer.global_step < self._steps:  # or a last validation is all that is missing
            self._prepare(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.schedule is None:
            return
        self.trained += get_step_state(pl_module).count * trainer.world_size
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            step = trainer.global_step
            if step % self.every == 0 or step == self._steps:
                self._log_progress(trainer, step)
            if step < self._steps:
                self._prepare(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.schedule is not None and trainer.is_global_zero:
            log.info("%s", self.describe())

    def describe(self) -> str:
        """One line about the whole run."""
        share = f"{self.probed_share:.1%}" if self.probed_share >= 0.0005 or not self._meter.units else "under 0.05%"
        return (
            f"curriculum {self.rule.name}: {len(self.timeline):,} decisions; probing took {self._meter.units:,} "
            f"{self._meter.unit}, {share} of the {self.trained:,} trained on"
        )

    # Decisions

    def _prepare(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Have all rows of the coming step written."""
        assert self.schedule is not None
        self._position = self.data.count_given_rows()
        clock = Clock(
            step=trainer.global_step,
            position=self._position,
            until=self._position + self.data.count_global_batch() * trainer.accumulate_grad_batches,
            steps=self._steps,
        )
        while probes := self.schedule.prepare(clock):
            self.schedule.answer(clock, self._answer(trainer, pl_module, probes))
        for decision in self.schedule.take_decisions():
            if decision.line:
                log.log(logging.WARNING if decision.urgent else logging.INFO, "%s", decision.line)
            if decision.numbers:
                self.timeline.append({"step": float(decision.step), **decision.numbers})
                log_numbers(trainer, self._number(decision.numbers), decision.step)

    def _answer(self, trainer: Trainer, pl_module: LightningModule, probes: Sequence[Probe]) -> list[Answer]:
        """Measure on all ranks; everybody goes by the numbers of rank 0."""
        if (rows := sum(len(probe.ids) for probe in probes if probe.what == "rows")) >= MANY:
            log.info("curriculum: measuring the loss of %s rows …", f"{rows:,}")
        answers = [self._meter.measure(trainer, pl_module, self._sides[probe.side], probe) for probe in probes]
        if trainer.world_size > 1:
            answers = trainer.strategy.broadcast(answers)
        return answers

    def _log_progress(self, trainer: Trainer, step: int) -> None:
        """How hard the rows of the step were that was just taken."""
        assert self.schedule is not None
        now = self.data.count_given_rows()
        difficulty = self.schedule.measure_difficulty(np.arange(self._position, now)) if now > self._position else None
        numbers = {} if difficulty is None else {"curriculum/difficulty": difficulty}
        log_numbers(trainer, self._number(numbers), step)

    def _number(self, numbers: Mapping[str, float]) -> dict[str, float]:
        return {**numbers, "curriculum/probed": self.probed_share}

    # State

    def _warn_other_difficulties(self, schedule: RowSchedule) -> None:
        """Say where rows to come may stand in another order than the run was begun with."""
        # Runs of earlier versions fitted metrics to all tasks, and did not say so.
        unknown = not self._before and isinstance(schedule, SectionedSchedule) and schedule.course.scores
        if unknown or self._before not in ("", schedule.course.scores_digest):
            log.warning(
                "curriculum: the checkpoint's rows were ordered by other difficulties; rows to come go by new ones"
            )

    def state_dict(self) -> dict[str, Any]:
        if self.schedule is None:
            return {}
        state = self._saved if self._saved is not None else self.schedule.state()
        return {
            "rule": describe_rule(self.rule),
            "schedule": pack_arrays(state),
            "difficulties": self.schedule.course.scores_digest,
            "trained": self.trained,
            "probed": self._meter.units,
            "timeline": self.timeline,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with a schedule; another rule begins anew where the run is, and says so."""
        if not state_dict or not self.active:
            return
        if change := find_rule_change(state_dict["rule"], describe_rule(self.rule)):
            log.warning("the checkpoint has another curriculum (%s): this one begins anew", change)
            return
        self._saved, self._before = unpack_arrays(state_dict["schedule"]), state_dict.get("difficulties", "")
        self.trained, self._meter.units = state_dict["trained"], state_dict["probed"]
        self.timeline = list(state_dict["timeline"])


def describe_rule(value: Any) -> Any:
    """A rule with all its values, plain: what a schedule's state belongs to."""
    if isinstance(value, str | int | float | None):
        return value
    if isinstance(value, Mapping):
        return {str(key): describe_rule(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [describe_rule(item) for item in value]
    fields = dataclasses.fields(value) if dataclasses.is_dataclass(value) else ()
    values = {field.name: describe_rule(getattr(value, field.name)) for field in fields}
    return {"class": f"{type(value).__module__}.{type(value).__qualname__}", **values}


def find_rule_change(before: Any, now: Any, path: str = "rule") -> str | None:
    """The first value of a described rule that is another one now; what a class has got since does not count."""
    if not isinstance(before, Mapping) or not isinstance(now, Mapping):
        return None if before == now else f"{path} {before}, now {now}"
    changes = (find_rule_change(item, now.get(key), f"{path}.{key}") for key, item in before.items())
    return next((change for change in changes if change), None)
