"""The clock of the smoothing sites: their memory is written, and their numbers are logged, once per optimizer step.

Legend: S sites, m candidates of a site (all micro-batches), W ranks, C dim.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from aptlab.callbacks.monitor import log_numbers
from aptlab.errors import TrainingError
from aptlab.limits import PositiveInt
from aptlab.nn.attention.largest import MAX_LOGITS
from aptlab.nn.smooth import LeftSpin, MemorySmooth, SketchTeacher, Smooth, Trace
from aptlab.nn.smooth.step_history import STEP_SIZES
from aptlab.objectives import get_step_state

SPIKES = ("spike_directions", "spike_strengths")
UNLOGGED = (*SPIKES, STEP_SIZES, MAX_LOGITS)  # what is no number, or not of a smoothing site
JOIN = {"peak": torch.amax, "nonfinite": torch.sum}


class SmoothMemory(Callback):
    """Teach smoothing sites what they remember, and log what they measure every `every` optimizer steps.

    After an optimizer step the candidates of all its micro-batches and ranks reach every site's `update`, so that
    the memories are equal on all ranks; they are in the state_dict, hence in checkpoints. A step that the guard skipped
    (`step_state.skipped`) teaches nothing and ages nothing. Evaluation never writes. On a CUDA device the memories
    are written there and no step waits; elsewhere the candidates are copied to the host. With strength.history=step the
    sizes of all steps reach the histories in the same way, and no step waits.

    Numbers are smooth/<layer>/<site>/<name>, of rank zero's batches: strength, angle, gate and danger are token means,
    peak is max |u'|, nonfinite a count of tokens; a rule has those that it can measure. `every=null` logs none. Sites
    of one fixed factor, or none, are asked by `plain` alone, which with compile=true costs a second compilation.
    Raises TrainingError where a site that remembers gets nothing to remember.
    """

    def __init__(self, *, every: PositiveInt | None = 10, plain: bool = False) -> None:
        self.every, self.plain = every, plain
        self._memories: dict[str, MemorySmooth] = {}
        self._teacher = SketchTeacher([])
        self._histories: dict[str, LeftSpin] = {}
        self._traced = False
        self._step = 0
        self._pending: list[Mapping[str, Trace]] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        modules = list(pl_module.modules())
        self._memories = {f"{m.layer}/{m.site}": m for m in modules if isinstance(m, MemorySmooth)}
        self._teacher = SketchTeacher([memory.sketch for memory in self._memories.values()])
        spins = [m for m in modules if isinstance(m, LeftSpin)]
        self._histories = {f"{m.layer}/{m.site}": m for m in spins if m.history is not None}
        self._traced = self.plain or any(isinstance(m, Smooth) and not m.plain for m in modules)
        self._step, self._pending = trainer.global_step, []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self._logs(trainer.global_step + 1):
            get_step_state(pl_module).wants_traces = True

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not (self._memories or self._histories or self._traced):
            return
        state = get_step_state(pl_module)
        self._pending.append(state.traces)
        if trainer.global_step == self._step:
            return
        traces, self._pending, self._step = self._pending, [], trainer.global_step
        if self._memories:
            self._learn(trainer, traces, state.skipped)
        if self._histories:
            self._learn_sizes(trainer, traces, state.skipped)
        if self._logs(self._step):
            log_numbers(trainer, summarize_traces(traces), self._step)

    def _logs(self, step: int) -> bool:
        return self._traced and self.every is not None and step % self.every == 0

    def _learn(self, trainer: Trainer, traces: Sequence[Mapping[str, Trace]], skipped: bool | Tensor) -> None:
        spikes_SmC = collect_spikes(list(self._memories), traces)
        if trainer.world_size > 1:
            spikes_WSmC = trainer.strategy.all_gather(spikes_SmC)
            spikes_SmC = spikes_WSmC.transpose(0, 1).flatten(1, 2)
        self._teacher.update(spikes_SmC, skipped)

    def _learn_sizes(self, trainer: Trainer, traces: Sequence[Mapping[str, Trace]], skipped: bool | Tensor) -> None:
        """No step waits for this: sums and numbers of tokens stay on the device."""
        sizes_S2 = torch.stack([collect_step_sizes(site, traces) for site in self._histories])
        if trainer.world_size > 1:
            sizes_S2 = trainer.strategy.all_gather(sizes_S2).sum(0)
        for spin, sizes_2 in zip(self._histories.values(), sizes_S2, strict=True):
            assert spin.history is not None
            spin.history.update(sizes_2, skipped)


def collect_step_sizes(site: str, traces: Sequence[Mapping[str, Trace]]) -> Tensor:
    """Sum of the sizes of one site's steps and number of their tokens in all micro-batches, float32 [2]."""
    found = [trace[site][STEP_SIZES] for trace in traces if STEP_SIZES in trace.get(site, {})]
    if len(found) != len(traces):
        raise TrainingError(
            f"smooth.strength.history=step: the step gave no sizes of steps for site {site}, so its history cannot "
            "learn; the task's training_step must set self.step_state.traces to output.traces of the net in training"
        )
    return torch.stack(found).sum(0)


def collect_spikes(sites: Sequence[str], traces: Sequence[Mapping[str, Trace]]) -> Tensor:
    """Spikes of all sites from all micro-batches, [S, m, C + 1]: direction, then strength."""
    for site in sites:
        if any(SPIKES[0] not in trace.get(site, {}) for trace in traces):
            raise TrainingError(
                f"smooth=memory: the step gave no spikes for site {site}, so its memory cannot learn; the task's "
                "training_step must set self.step_state.traces to output.traces of the net in training mode"
            )
    directions, strengths = (
        torch.stack([trace[site][name] for site in sites for trace in traces]).unflatten(0, (len(sites), -1))
        for name in SPIKES
    )
    return torch.cat((directions.flatten(1, 2), strengths.flatten(1, 2).unsqueeze(-1)), -1).float()


def summarize_traces(traces: Sequence[Mapping[str, Trace]]) -> dict[str, float]:
    """smooth/<layer>/<site>/<name> over the micro-batches of a step; one copy from the device."""
    values: dict[str, list[Tensor]] = {}
    for trace in traces:
        for site, seen in trace.items():
            for name, value in seen.items():
                if name not in UNLOGGED:
                    values.setdefault(f"smooth/{site}/{name}", []).append(value.float())
    if not values:
        return {}
    joined = [JOIN.get(key.rsplit("/", 1)[1], torch.mean)(torch.stack(found), 0) for key, found in values.items()]
    return dict(zip(values, torch.stack(joined).tolist(), strict=True))
