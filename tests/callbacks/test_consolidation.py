"""What an objective remembers of tasks: Fisher information as by hand, the network as it was, and what is refused."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from tests.reference import continual as reference
from torch import Tensor, nn

from aptlab.callbacks.consolidation import Consolidation, check_memory_of_tasks, measure_fisher
from aptlab.errors import ConfigError
from aptlab.objectives import CrossEntropy, ElasticWeights, LearningWithoutForgetting


class Given(NamedTuple):
    logits: Tensor


class Linear(nn.Module):
    """A task: logits W x."""

    def __init__(self, objective: Any) -> None:
        super().__init__()
        self.net, self.objective, self.device = nn.Linear(3, 4, bias=False).double(), objective, torch.device("cpu")

    def forward(self, batch: dict[str, Tensor]) -> Given:
        return Given(self.net(batch["inputs"]))


class Rows:
    """Data of one task whose rows are numbered."""

    def __init__(self, count: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.inputs = torch.randn(count, 3, generator=generator, dtype=torch.float64)
        self.targets = torch.randint(4, (count,), generator=generator)

    def list_task_rows(self, task: int) -> np.ndarray:
        return np.arange(len(self.targets))

    def fetch_rows(self, rows: np.ndarray) -> dict[str, Tensor]:
        return {"inputs": self.inputs[rows], "targets": self.targets[rows]}


TRAINER: Any = SimpleNamespace(
    strategy=SimpleNamespace(batch_to_device=lambda batch: batch),
    precision_plugin=SimpleNamespace(val_step_context=nullcontext),
)


def test_fisher_information_is_the_mean_of_squared_gradients_of_single_rows():
    task, data = Linear(ElasticWeights(base=CrossEntropy())), Rows(9)
    found = measure_fisher(TRAINER, task, data, 0, samples=50, seed=0)["weight"]
    expected = reference.fisher_of_linear(task.net.weight.tolist(), data.inputs.tolist(), data.targets.tolist())
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float32), rtol=1e-5, atol=1e-7)
    assert task.training


def test_the_penalty_is_what_the_weights_moved_by_their_importance():
    kept, task = Consolidation(), Linear(ElasticWeights(base=CrossEntropy()))
    kept._anchor_weights(TRAINER, task, Rows(5), 0)
    fisher, anchor = kept._fisher["weight"], task.net.weight.detach().clone()
    assert kept._measure_change(task).item() == 0
    with torch.no_grad():
        task.net.weight.add_(0.5)
    penalty = kept._measure_change(task)
    assert penalty.item() == pytest.approx((fisher * 0.25).sum().item(), rel=1e-5)
    (grad,) = torch.autograd.grad(penalty, [task.net.weight])
    torch.testing.assert_close(grad.float(), (2 * fisher * 0.5), rtol=1e-4, atol=1e-6)
    kept._anchor_weights(TRAINER, task, Rows(5), 1)
    assert (kept._fisher["weight"] >= fisher).all()  # decay=1 adds up
    assert not torch.equal(kept._anchors["weight"], anchor.float())


@pytest.mark.parametrize("kind", [ElasticWeights, LearningWithoutForgetting])
def test_data_without_tasks_are_refused(kind):
    with pytest.raises(ConfigError, match=rf"{kind.__name__} remembers tasks that ended, and Rows are none; choose a"):
        check_memory_of_tasks(Linear(kind(base=CrossEntropy())), Rows(2))
