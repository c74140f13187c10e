"""A task that is no language model: a line through vectors, with a network, an objective and data of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor, nn

from aptlab.errors import CheckpointError
from aptlab.evals.base import Eval, EvalContext, Measurement
from aptlab.objectives import Objective
from aptlab.tasks import Task

CONF = {
    "task/regression": """
        # Fit a line through vectors.
        _target_: tests.training.regression.Regression
        net:
          _target_: tests.training.regression.Line
          inputs: ${data.inputs}
        objective:
          _target_: tests.training.regression.SquaredError
        optim: ${optim}
        schedule: ${schedule}
    """,
    "data/vectors": """
        # Vectors whose sum is to be predicted.
        _target_: tests.training.regression.Vectors
        inputs: 3
        batch: 4
        seed: ${seed}
    """,
    "eval/slope": """
        # The weights of the line.
        _target_: tests.training.regression.Slope
    """,
}


class Predicted(NamedTuple):
    """The output of a `Line`."""

    values: Tensor


class Line(nn.Module):
    """y = w x + b"""

    def __init__(self, *, inputs: int) -> None:
        super().__init__()
        self.line = nn.Linear(inputs, 1)

    def forward(self, x_BD: Tensor) -> Predicted:
        return Predicted(self.line(x_BD).squeeze(-1))


class SquaredError(Objective):
    """Mean squared error."""

    def compute_parts(self, output: Any, batch: Mapping[str, Tensor], *, rows: bool = False) -> dict[str, Tensor]:
        return {"loss": (output.values - batch["y"]).square().mean()}

    def sum_losses(self, output: Any, batch: Mapping[str, Tensor]) -> Tensor:
        squares = (output.values - batch["y"]).square().double()
        return torch.stack((squares.sum(), squares.new_tensor(len(squares))))


class Regression(Task):
    """A line, fitted."""

    def forward(self, batch: Mapping[str, Tensor], *, trace: bool = False) -> Predicted:
        return self.net(batch["x"])

    def count_units(self, batch: Mapping[str, Tensor]) -> int:
        return len(batch["x"])


class Rows:
    """Batches by number: endless, or `count` of them."""

    def __init__(self, data: Vectors, *, start: int, count: int | None = None) -> None:
        self.data, self.start, self.count = data, start, count

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        number = self.start
        while self.count is None or number < self.start + self.count:
            x = torch.randn(
                self.data.batch,
                self.data.inputs,
                generator=torch.Generator().manual_seed(number + 100 * self.data.seed),
            )
            yield {"x": x, "y": x.sum(-1), "ids": torch.arange(number, number + self.data.batch)}
            number += 1


class FewRows(Rows):
    """Rows that end."""

    def __len__(self) -> int:
        assert self.count is not None
        return self.count


class Vectors(LightningDataModule):
    """Random vectors and their sums, a function of the number of the batch."""

    def __init__(self, *, inputs: int, batch: int, seed: int = 0) -> None:
        super().__init__()
        self.inputs, self.batch, self.seed = inputs, batch, seed
        self._start = self._counted = 0

    @property
    def fingerprint(self) -> str:
        return f"vectors-{self.inputs}"

    def summary(self) -> dict[str, Any]:
        return {"name": "vectors", "fingerprint": self.fingerprint, "rows": 40 * self.batch}

    def batches_per_epoch(self, world: int) -> int:
        return 40 // world

    def check_state(self, state_dict: dict[str, Any]) -> None:
        if state_dict.get("fingerprint", self.fingerprint) != self.fingerprint:
            raise CheckpointError("other vectors")

    def train_dataloader(self) -> Rows:
        self._counted = self._processed()
        return Rows(self, start=self._start)

    def val_dataloader(self) -> FewRows:
        return FewRows(self, start=1000, count=2)

    def state_dict(self) -> dict[str, Any]:
        return {"micro_batches": self._start + self._processed() - self._counted}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._start = state_dict["micro_batches"]

    def _processed(self) -> int:
        if self.trainer is None:
            return 0
        progress: Any = self.trainer.fit_loop.epoch_loop.batch_progress
        return progress.total.processed


class Slope(Eval):
    """The weights of the line; reads no tokens."""

    name = "slope"
    needs_tokens = False

    def measure(self, context: EvalContext) -> Measurement:
        net: Any = context.net
        return Measurement(rows={"weights": [{"weight": value} for value in net.line.weight[0].tolist()]})
