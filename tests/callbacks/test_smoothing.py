"""The clock of the smoothing sites, in real Trainer runs."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers.logger import Logger
from torch import nn
from torch.utils.data import DataLoader

from aptlab.callbacks.smoothing import SmoothMemory
from aptlab.errors import TrainingError
from aptlab.nn.smooth import LeftSpin, MemorySmooth, Plain, ReZero, Strength
from aptlab.objectives import StepState
from aptlab.testing.smooth import join_once

DIM, ROWS, TOKENS = 8, 4, 3


class Net(nn.Module):
    """Two branches joined to the stream, steps large enough to spike."""

    def __init__(self, smooth):
        super().__init__()
        self.branches = nn.ModuleList(nn.Linear(DIM, DIM) for _ in range(2))
        self.joins = nn.ModuleList(smooth(DIM, layer=i, site="ffn") for i in range(2))

    def forward(self, x, trace=False):
        carry, traces = None, {}
        for i, (branch, join) in enumerate(zip(self.branches, self.joins)):
            x, carry, seen = join_once(join, x, 4 * branch(x), carry, trace=trace)
            if seen is not None:
                traces[f"{i}/ffn"] = seen
        return x, traces


class Task(LightningModule):
    def __init__(self, smooth, mute=False):
        super().__init__()
        torch.manual_seed(0)
        self.net, self.step_state, self.mute = Net(smooth), StepState(), mute
        self.asked: list[bool] = []

    def training_step(self, batch, batch_idx):
        trace, _ = self.step_state.begin_batch()
        self.asked.append(trace)
        rows = batch[self.global_rank :: self.trainer.world_size]
        out, traces = self.net(rows, trace=trace)
        self.step_state.traces = {} if self.mute else traces
        return {"loss": out.square().mean()}

    def validation_step(self, batch, batch_idx):
        self.net(batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


class Lines(Logger):
    name, version = "lines", 0

    def __init__(self):
        super().__init__()
        self.lines: dict[int, dict[str, float]] = {}

    def log_metrics(self, metrics, step=None):
        self.lines[step] = dict(metrics)

    def log_hyperparams(self, *args, **kwargs):
        pass


def data(rows=ROWS, first=0, count=8):
    rng = torch.Generator().manual_seed(5)
    samples = torch.randn(64, TOKENS, DIM, generator=rng)[first : first + rows * count]
    return DataLoader(samples, batch_size=rows)


def fit(task, *callbacks, steps=3, accumulate=1, loader=None, logger=None, val=None, **kwargs):
    trainer = Trainer(
        max_steps=steps,
        accumulate_grad_batches=accumulate,
        callbacks=list(callbacks),
        logger=logger or False,
        accelerator="cpu",
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **({"limit_val_batches": 0, "num_sanity_val_steps": 0} | kwargs),
    )
    trainer.fit(task, loader or data(), val)
    return trainer


def memory_of(task):
    return {name: value.clone() for name, value in task.net.joins.state_dict().items()}


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def test_the_memory_is_written_once_per_optimizer_step():
    task = Task(MemorySmooth)
    fit(task, SmoothMemory(), steps=3, accumulate=2)
    expected = Task(MemorySmooth)
    batches = list(data())
    for step in range(3):
        seen = [expected.net(batch)[1] for batch in batches[2 * step : 2 * step + 2]]
        for i, join in enumerate(expected.net.joins):
            parts = [trace[f"{i}/ffn"] for trace in seen]
            join.update(*(torch.cat([part[f"spike_{key}"] for part in parts]) for key in ("directions", "strengths")))
    assert memory_of(task)["0.sketch.strengths"].count_nonzero() >= 4
    assert memory_of(task)["0.sketch.ages"].max() == 2
    assert same(memory_of(task), memory_of(expected))


def test_accumulation_remembers_what_one_large_batch_would():
    small, large = Task(MemorySmooth), Task(MemorySmooth)
    fit(small, SmoothMemory(), steps=2, accumulate=4, loader=data(2, count=8))
    fit(large, SmoothMemory(), steps=2, loader=data(8, count=2))
    assert memory_of(small)["0.sketch.strengths"].any()
    for name, value in memory_of(small).items():
        assert torch.allclose(value, memory_of(large)[name], atol=1e-6), name


class SkipStep(Callback):
    """Stands for the guard: the optimizer step number `step` counts as non-finite."""

    def __init__(self, step):
        self.step = step

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        pl_module.step_state.skipped = trainer.global_step == self.step


def test_a_skipped_step_teaches_and_ages_nothing():
    whole, skipping, shorter = (Task(MemorySmooth) for _ in range(3))
    fit(whole, SmoothMemory(), steps=2)
    fit(skipping, SkipStep(1), SmoothMemory(), steps=2)
    fit(shorter, SmoothMemory(), steps=1)
    assert same(memory_of(skipping), memory_of(shorter))
    assert not same(memory_of(skipping), memory_of(whole))


class Watch(Callback):
    def on_validation_start(self, trainer, pl_module):
        self.before = memory_of(pl_module)

    def on_validation_end(self, trainer, pl_module):
        self.kept = same(self.before, memory_of(pl_module))


def test_validation_never_writes():
    watch = Watch()
    fit(Task(MemorySmooth), SmoothMemory(), watch, steps=2, val=data(), limit_val_batches=4, val_check_interval=2)
    assert watch.before["0.sketch.strengths"].any()
    assert watch.kept


def test_statistics_are_logged_every_few_steps_and_asked_for_only_then():
    task, lines = Task(LeftSpin), Lines()
    fit(task, SmoothMemory(every=2), steps=5, logger=lines)
    assert sorted(lines.lines) == [2, 4]
    assert task.asked == [False, True, False, True, False]
    names = {"strength", "angle", "gate", "danger", "peak", "nonfinite"}
    assert lines.lines[4].keys() == {f"smooth/{i}/ffn/{name}" for i in range(2) for name in names}
    assert 0 < lines.lines[4]["smooth/0/ffn/gate"] < 1
    assert task.step_state.wants_traces is False


def test_statistics_cover_all_micro_batches():
    task, lines = Task(LeftSpin), Lines()
    fit(task, SmoothMemory(every=1), steps=1, accumulate=2, logger=lines)
    first, second = (task.net(batch, trace=True)[1]["1/ffn"] for batch in list(data())[:2])
    got = lines.lines[1]
    assert got["smooth/1/ffn/gate"] == pytest.approx(((first["gate"] + second["gate"]) / 2).item())
    assert got["smooth/1/ffn/peak"] == pytest.approx(max(first["peak"].item(), second["peak"].item()))


@pytest.mark.parametrize(
    ("callback", "steps"), [(SmoothMemory(every=1), []), (SmoothMemory(every=1, plain=True), [1, 2])]
)
def test_plain_residuals_are_left_alone_unless_asked(callback, steps):
    task, lines = Task(Plain), Lines()
    fit(task, callback, steps=2, logger=lines)
    assert sorted(lines.lines) == steps
    assert task.asked == [bool(steps)] * 2
    names = ("strength", "gate", "peak", "nonfinite")
    keys = {f"smooth/{i}/ffn/{name}" for i in range(2) for name in names}
    assert all(line.keys() == keys for line in lines.lines.values())


def test_a_learned_rule_is_asked_for_its_statistics():
    task, lines = Task(ReZero), Lines()
    fit(task, SmoothMemory(every=1), steps=1, logger=lines)
    assert lines.lines[1]["smooth/1/ffn/gate"] < 1e-3


by_step = partial(LeftSpin, strength=Strength(history="step", decay=0.5))


def test_a_history_by_step_is_written_once_per_optimizer_step_and_by_all_tokens_alike():
    small, large, skipping = Task(by_step), Task(by_step), Task(by_step)
    fit(small, SmoothMemory(every=1), steps=3, accumulate=4, loader=data(2, count=12))
    fit(large, SmoothMemory(every=None), steps=3, loader=data(8, count=3))
    assert memory_of(small)["0.history.steps"] == 3
    assert memory_of(small)["0.history.size"] > 0
    for name, value in memory_of(small).items():
        assert torch.allclose(value, memory_of(large)[name], atol=1e-5), name
    fit(skipping, SkipStep(2), SmoothMemory(), steps=3, loader=data(8, count=3))
    assert memory_of(skipping)["0.history.steps"] == 2


def test_a_memory_with_a_history_by_step_learns_both():
    task = Task(partial(MemorySmooth, strength=Strength(history="step")))
    fit(task, SmoothMemory(), steps=2)
    assert memory_of(task)["0.spin.history.steps"] == 2
    assert memory_of(task)["0.sketch.strengths"].any()
    with pytest.raises(TrainingError, match=r"^smooth\.strength\.history=step: the step gave no sizes of steps"):
        fit(Task(by_step, mute=True), SmoothMemory())


def test_every_null_learns_and_logs_nothing():
    task, lines = Task(MemorySmooth), Lines()
    fit(task, SmoothMemory(every=None), steps=2, logger=lines)
    assert lines.lines == {}
    assert memory_of(task)["0.sketch.strengths"].any()


def test_a_task_that_hides_its_traces_is_told_so():
    with pytest.raises(
        TrainingError, match=r"smooth=memory: the step gave no spikes for site 0/ffn.*training_step must"
    ):
        fit(Task(MemorySmooth, mute=True), SmoothMemory())


class TwoRanks:
    """A trainer of two ranks as rank 0 sees it; `other` is what rank 1 sends."""

    world_size, global_step, is_global_zero = 2, 0, False

    def __init__(self, other):
        self.strategy, self.other = self, other

    def all_gather(self, tensor):
        return torch.stack((tensor, self.other))


def test_the_spikes_of_other_ranks_reach_the_right_site():
    task, other = Task(MemorySmooth), torch.zeros(2, 4, DIM + 1)
    other[0, 0, [2, -1]], other[1, 0, [3, -1]] = 7.0, 8.0
    other[:, 0, :DIM] /= other[:, 0, :DIM].norm(dim=-1, keepdim=True)
    trainer, callback = TwoRanks(other), SmoothMemory()
    callback.on_train_start(trainer, task)
    traces = task.net(0 * next(iter(data())) + 1)[1]
    trainer.global_step = 1
    task.step_state.traces = traces
    callback.on_train_batch_end(trainer, task, None, None, 0)
    for i, (axis, strength) in enumerate(((2, 7.0), (3, 8.0))):
        sketch = task.net.joins[i].sketch
        assert torch.equal(sketch.directions[0], torch.eye(DIM)[axis])
        assert sketch.strengths[0] == strength


class SaveMemory(Callback):
    """Every rank's memory, as it is in that rank's process."""

    def __init__(self, folder):
        self.folder = folder

    def on_train_end(self, trainer, pl_module):
        torch.save(memory_of(pl_module), self.folder / f"{trainer.global_rank}.pt")


@pytest.mark.slow
def test_two_ranks_hold_the_same_memory_as_one_process_with_all_batches(tmp_path):
    ranks = {"strategy": "ddp_spawn", "devices": 2, "use_distributed_sampler": False}
    fit(Task(MemorySmooth), SmoothMemory(), SaveMemory(tmp_path), steps=2, accumulate=2, loader=data(4), **ranks)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert same(first, second)
    assert first["0.sketch.strengths"].count_nonzero() >= 4
    alone = Task(MemorySmooth)
    fit(alone, SmoothMemory(), steps=2, loader=data(8))
    for name, value in memory_of(alone).items():
        assert torch.allclose(first[name], value, atol=1e-6), name
