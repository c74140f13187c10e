"""Replay: samples of the stream are kept, and some of them join every new batch.

Legend: B new rows of a rank, W ranks, M rows from memory beside them, T tokens.

The stream is known to every rank, because a batch is a function of its number. So each rank keeps the same samples, the
ones that a single rank with the whole batch would keep, and no rank sends another one a row number.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from aptlab.callbacks.base import RunAware, RunContext
from aptlab.callbacks.evaluating import evaluate_quietly
from aptlab.callbacks.lookup import get_datamodule
from aptlab.callbacks.monitor import log_numbers
from aptlab.callbacks.replay_state import map_zeros, pack_state, unpack_state
from aptlab.continual.memory import BYTES, KeyedMemory, Offer
from aptlab.continual.rehearsal import Rehearsal, Replay, format_bytes
from aptlab.data.tasks import StepSamples, TaskData
from aptlab.errors import CheckpointError, ConfigError
from aptlab.limits import PositiveInt
from aptlab.objectives import get_step_state
from aptlab.runs.ranks import get_process_rank

log = logging.getLogger("aptlab")
DRAWS = 8  # draws that one micro-batch may take
LARGE = 1 << 30  # bytes of logits that are kept in memory; more are kept in a file
FILE = "replay-{}.bin"  # of a rank


class ReplayMemory(RunAware, Callback):
    """Keep samples as `rule` says, and put rows of them behind the new ones of each micro-batch.

    A batch that was joined has "memory", int64 on the host: how many rows at its end each draw of the objective's
    `replays` has; with a draw of logits also "logits", [M, …]. Samples are offered after their step, a row that comes
    again in a later epoch is the same sample. Every rank has the same samples, all of them are in the checkpoint.
    Raises ConfigError where the data, the scenario or the objective do not fit.

    every  optimizer steps between logged numbers: replay/held, and replay/<task>, the samples held of each task
    """

    def __init__(self, *, rule: Replay, every: PositiveInt = 10) -> None:
        self.rule, self.every = rule, every
        self.memory = KeyedMemory(rule.capacity if isinstance(rule, Rehearsal) else 0)
        self._seen: np.ndarray | None = None  # bool, over all training rows
        self._pending: list[np.ndarray] = []  # rows of the task that is trained on, with update=task
        self._fresh = np.zeros(0, dtype=bool)  # which samples of the micro-batch came for the first time
        self._offered = 0
        self._logits: Tensor | None = None  # by slot, on the host or in a file that is mapped
        self._folder: Path | None = None
        self._number, self._step = 0, -1
        self._rows = 0  # new ones of this rank's micro-batch

    def attach(self, run: RunContext) -> None:
        """Where logits go that are too large for memory."""
        self._folder = run.folder

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not isinstance(self.rule, Rehearsal):
            return
        data = get_datamodule(trainer)
        needed = check_replay(self.rule, data, pl_module)
        if self._seen is None:
            self._seen = np.zeros(len(data.joint_table), dtype=bool)
        self._step = trainer.global_step
        log.info("replay: at most %s samples in %s", f"{self.rule.capacity:,}", format_bytes(needed))

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if not isinstance(self.rule, Rehearsal):
            return
        data: TaskData = get_datamodule(trainer)
        assert data.clock is not None
        self._number, self._rows = data.count_micro_batches(), len(batch["ids"])
        replays = get_replays(pl_module)
        task = 0 if data.scenario.boundaries == "hidden" else data.clock.find_task(self._number)
        count = self.rule.schedule.count_rows(self._rows, step=trainer.global_step, task=task)
        get_step_state(pl_module).wants_output = "logits" in replays
        if count and len(self.memory):
            join_batch(batch, [self._draw(trainer, data, count, draw) for draw in range(len(replays))])
            if "logits" in replays:
                slots = self._find_slots(trainer, data, count, replays.index("logits"))
                assert self._logits is not None
                batch["logits"] = self._logits[torch.from_numpy(slots)].to(batch["ids"].device, non_blocking=True)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not isinstance(self.rule, Rehearsal):
            return
        data: TaskData = get_datamodule(trainer)
        samples = self._take_new(data.find_samples(self._number))
        if self.rule.update == "step":
            self._offer(trainer, pl_module, data, samples)
        else:
            self._pending.append(samples.rows)
        step = trainer.global_step
        if step == self._step:
            return
        self._step = step
        assert data.clock is not None
        if self.rule.update == "task" and data.clock.find_ended(step) is not None:
            self._offer_task(trainer, pl_module, data)
        if step % self.every == 0 or step == trainer.max_steps:
            log_numbers(trainer, self._count_samples(data), step)

    def _find_slots(self, trainer: Trainer, data: TaskData, count: int, draw: int) -> np.ndarray:
        """The slots of this rank's share of a draw."""
        assert isinstance(self.rule, Rehearsal)
        rank = trainer.global_rank if data.count_world() > 1 else 0
        positions = rank * count + np.arange(count)
        return self.memory.draw_slots(positions, seed=self.rule.seed, number=self._number * DRAWS + draw)

    def _draw(self, trainer: Trainer, data: TaskData, count: int, draw: int) -> dict[str, Tensor]:
        return data.fetch_rows(self.memory.get_rows(self._find_slots(trainer, data, count, draw)))

    def _take_new(self, samples: StepSamples) -> StepSamples:
        """Those that come for the first time, which are marked; a batch over the end of a pass may hold a row twice."""
        assert self._seen is not None
        first = np.zeros(len(samples.rows), dtype=bool)
        first[np.unique(samples.rows, return_index=True)[1]] = True
        self._fresh = first & ~self._seen[samples.rows]
        self._seen[samples.rows] = True
        return StepSamples(samples.rows[self._fresh], samples.tasks[self._fresh])

    def _offer(self, trainer: Trainer, pl_module: LightningModule, data: TaskData, samples: StepSamples) -> None:
        """Offer new samples of a micro-batch, and keep the logits of those that are taken."""
        assert isinstance(self.rule, Rehearsal)
        rows = samples.rows
        numbers = self._offered + np.arange(len(rows), dtype=np.int64)
        groups = find_groups(self.rule, data, samples)
        keys = self.rule.policy.make_keys(numbers, seed=self.rule.seed)
        slots, positions = self.memory.add(Offer(numbers, rows, groups, keys))
        self._offered += len(rows)
        if "logits" in get_replays(pl_module):
            places = np.flatnonzero(self._fresh)[positions]
            self._keep_logits(trainer, get_step_state(pl_module).output, slots, places)

    def _keep_logits(self, trainer: Trainer, output: Any, slots: np.ndarray, places: np.ndarray) -> None:
        """Logits of the samples at `places` of the batch of all ranks, each of which has its own part of them."""
        logits = output.logits.detach()
        if self._logits is None:
            self._logits = self._allocate((self.memory.capacity, *logits.shape[1:]), trainer.global_rank)
        if trainer.world_size == 1:
            self._logits[torch.from_numpy(slots)] = logits[torch.from_numpy(places)].float().cpu()
            return
        owners = places // self._rows
        most = int(np.bincount(owners, minlength=trainer.world_size).max()) if len(owners) else 0
        if not most:
            return
        mine = places[owners == trainer.global_rank] - trainer.global_rank * self._rows
        part = logits.new_zeros((most, *logits.shape[1:]), dtype=torch.float32)
        part[: len(mine)] = logits[torch.from_numpy(mine).to(logits.device)].float()
        parts = trainer.strategy.all_gather(part).view(trainer.world_size, *part.shape).cpu()
        for rank in np.unique(owners).tolist():
            of_rank = np.flatnonzero(owners == rank)
            self._logits[torch.from_numpy(slots[of_rank])] = parts[rank, : len(of_rank)]

    def _allocate(self, shape: Sequence[int], rank: int) -> Tensor:
        """Zeros in memory, or in a file of the run's folder where they are large."""
        if self._folder is None or 4 * math.prod(shape) <= LARGE:
            return torch.zeros(shape, dtype=torch.float32)
        return map_zeros(self._folder / FILE.format(rank), shape)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The last checkpoint has what the file has."""
        if self._folder is not None:
            (self._folder / FILE.format(trainer.global_rank)).unlink(missing_ok=True)

    def _offer_task(self, trainer: Trainer, pl_module: LightningModule, data: TaskData) -> None:
        """Offer the samples of the task that ends, with features of the network where the policy needs them."""
        assert isinstance(self.rule, Rehearsal)
        rows = np.concatenate(self._pending) if self._pending else np.zeros(0, dtype=np.int64)
        self._pending = []
        samples = StepSamples(rows, data.joint_table.find_tasks(rows))
        numbers = self._offered + np.arange(len(rows), dtype=np.int64)
        groups = find_groups(self.rule, data, samples)
        features = None
        if self.rule.policy.needs_features:
            features = trainer.strategy.broadcast(extract_features(trainer, pl_module, data, rows))
        keys = np.zeros(len(rows), dtype=np.uint64)
        for group in np.unique(groups).tolist():
            mine = groups == group
            of_group = None if features is None else features[mine]
            keys[mine] = self.rule.policy.make_keys(numbers[mine], seed=self.rule.seed, features=of_group)
        self.memory.add(Offer(numbers, rows, groups, keys))
        self._offered += len(rows)

    def _count_samples(self, data: TaskData) -> dict[str, float]:
        tasks = data.joint_table.find_tasks(self.memory.list_samples().rows)
        counts = np.bincount(tasks, minlength=len(data.task_names)).tolist()
        numbers = {f"replay/{name}": float(count) for name, count in zip(data.task_names, counts, strict=True)}
        return {"replay/held": float(len(self.memory)), **numbers}

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers and tensors; nothing where nothing is kept."""
        if not isinstance(self.rule, Rehearsal):
            return {}
        facts = {"policy": type(self.rule.policy).__name__, "offered": self._offered}
        return facts | pack_state(self.memory, self._seen, self._pending, self._logits)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Raises CheckpointError where the samples were kept by another policy."""
        if not isinstance(self.rule, Rehearsal) or not state_dict:
            return
        now, before = type(self.rule.policy).__name__, state_dict["policy"]
        if before != now:
            raise CheckpointError(
                f"the checkpoint's samples were kept by {before}, and replay now keeps them by {now}; resume with the "
                "replay option that it had, or start a new run from its weights with load=weights"
            )
        self._offered = int(state_dict["offered"])
        self._seen, self._pending, logits = unpack_state(self.memory, state_dict)
        if logits is not None:
            self._logits = self._allocate(logits.shape, get_process_rank()).copy_(logits)


def get_replays(pl_module: Any) -> Sequence[str]:
    """What the objective of a task draws from memory."""
    return pl_module.objective.replays


def check_replay(rule: Replay, data: Any, task: Any) -> int:
    """Bytes of the full buffer. Raises ConfigError where data, scenario, objective or machine do not allow it."""
    if not isinstance(rule, Rehearsal):
        return 0
    if not isinstance(data, TaskData):
        raise ConfigError(
            f"replay needs data whose rows can be asked for again, and {type(data).__name__} are none; use "
            "scenario=domains, or replay=none"
        )
    by, replays = rule.policy.grouped_by, get_replays(task)
    asks = by == "task" or rule.update == "task" or rule.schedule.counts_tasks
    if asks:
        data.require_boundaries("this replay asks where a task ends", "replay=reservoir with update=step")
    if by == "class" and data.find_labels(np.zeros(0, dtype=np.int64)) is None:
        raise ConfigError("by=class: rows of text have no class; use replay=task_balanced, or by=task")
    if "logits" in replays and rule.update == "task":
        raise ConfigError(
            f"update=task: {type(task.objective).__name__} keeps the logits of the step at which a sample came; use "
            "replay=reservoir with update=step"
        )
    return rule.check_memory(BYTES + (4 * count_logits(task, data) if "logits" in replays else 0))


def count_logits(task: Any, data: Any) -> int:
    """Numbers in the logits of one row."""
    batch = data.fetch_rows(np.zeros(1, dtype=np.int64))
    moved = {name: tensor.to(task.device) for name, tensor in batch.items()}
    with torch.no_grad():
        return task(moved).logits.numel()


def find_groups(rule: Rehearsal, data: TaskData, samples: StepSamples) -> np.ndarray:
    """The group of each sample, as the policy counts them."""
    by = rule.policy.grouped_by
    if by is None:
        return np.zeros(len(samples.rows), dtype=np.int64)
    labels = samples.tasks if by == "task" else data.find_labels(samples.rows)
    assert labels is not None  # `check_replay` has asked
    return labels


def join_batch(batch: dict[str, Tensor], drawn: Sequence[dict[str, Tensor]]) -> None:
    """Put the drawn rows behind those of a batch, in place, and say how many each draw has."""
    for name, tensor in list(batch.items()):
        old = [rows[name].to(tensor.device, non_blocking=True) for rows in drawn]
        batch[name] = torch.cat((tensor, *old))
    batch["memory"] = torch.tensor([len(rows["ids"]) for rows in drawn])


def extract_features(trainer: Trainer, pl_module: Any, data: TaskData, rows: np.ndarray) -> np.ndarray:
    """Features of rows as the network has them now, in eval mode, float32 [N, D]; on rank zero, else nothing."""
    if not trainer.is_global_zero:
        return np.zeros((0, 0), dtype=np.float32)
    found = []
    with evaluate_quietly(trainer, pl_module):
        for begin in range(0, len(rows), data.batch):
            batch = trainer.strategy.batch_to_device(data.fetch_rows(rows[begin : begin + data.batch]))
            found.append(pl_module.extract_features(batch).float().cpu().numpy())
    return np.concatenate(found) if found else np.zeros((0, 1), dtype=np.float32)
