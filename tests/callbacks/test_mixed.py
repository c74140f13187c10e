from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.loggers.logger import Logger
from tests import helpers
from tests.data.conftest import Texts

from aptlab.callbacks.mixed import MixedShares
from aptlab.callbacks.monitor import Monitor
from aptlab.data.rows.shares import KINDS
from aptlab.errors import ConfigError
from aptlab.objectives import StepState
from aptlab.testing import make_tiny_decoder


class Lines(Logger):
    """Keeps what it is given."""

    name = version = "lines"

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[int | None, dict[str, float]] = {}

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        raise AssertionError("nothing should log hyper-parameters through Lightning")

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.found.setdefault(step, {}).update(metrics)


class Fake:
    """A trainer as far as the callback looks at it."""

    def __init__(self, *, accumulate: int = 1) -> None:
        self.lines, self.accumulate = Lines(), accumulate
        self.loggers, self.is_global_zero, self.max_steps = [self.lines], True, 6
        self.batches, self.world_size = 0, 1

    @property
    def global_step(self) -> int:
        return self.batches // self.accumulate


def batch(*kinds: int) -> dict[str, torch.Tensor]:
    """Rows of 8 tokens: kind 0 as four pieces of 2, others as one segment."""
    pairs = torch.arange(8) // 2
    segments = torch.stack([pairs + 1 if kind == 0 else torch.ones(8, dtype=torch.long) for kind in kinds])
    positions = torch.stack([torch.arange(8) % 2 if kind == 0 else torch.arange(8) for kind in kinds])
    return {"positions": positions, "segments": segments, "kinds": torch.tensor(kinds)}


def feed(callback: MixedShares, trainer: Any, *batches: dict[str, torch.Tensor], rows: list[Any] | None = None) -> None:
    for i, one in enumerate(batches):
        trainer.batches += 1
        state = StepState(rows=None if rows is None else torch.tensor(rows[i], dtype=torch.float64))
        callback.on_train_batch_end(trainer, SimpleNamespace(step_state=state), None, one, 0)  # type: ignore[arg-type]


def test_shares_of_tokens_and_rows_are_logged():
    callback, trainer = MixedShares(original_len=4, every=2), Fake()
    callback.on_train_start(trainer, SimpleNamespace())  # type: ignore[arg-type]
    feed(callback, trainer, batch(0, 2), batch(1, 2), batch(0, 0), batch(0, 0))
    rows = {"mixed/rows/short": 0.25, "mixed/rows/packed": 0.25, "mixed/rows/long": 0.5}
    assert trainer.lines.found == {2: {"mixed/short": 0.25, **rows}, 4: pytest.approx(trainer.lines.found[4])}
    assert trainer.lines.found[4]["mixed/short"] == 1.0


def test_micro_batches_of_one_step_are_one_line():
    callback, trainer = MixedShares(original_len=4, every=1), Fake(accumulate=2)
    callback.on_train_start(trainer, SimpleNamespace())  # type: ignore[arg-type]
    feed(callback, trainer, batch(0), batch(2), batch(2), batch(2))
    assert [line["mixed/short"] for line in trainer.lines.found.values()] == [0.5, 0.0]


def test_a_line_that_is_not_full_survives_a_resume():
    first, trainer = MixedShares(original_len=4, every=2), Fake()
    first.on_train_start(trainer, SimpleNamespace())  # type: ignore[arg-type]
    feed(first, trainer, batch(0))
    second = MixedShares(original_len=4, every=2)
    second.load_state_dict(first.state_dict())
    second.on_train_start(trainer, SimpleNamespace())  # type: ignore[arg-type]
    feed(second, trainer, batch(2))
    assert trainer.lines.found[2]["mixed/short"] == 0.5


def test_losses_are_token_means_of_each_kind():
    callback, trainer = MixedShares(original_len=4, every=2), Fake()
    callback.on_train_start(trainer, SimpleNamespace())  # type: ignore[arg-type]
    feed(callback, trainer, batch(0, 2), batch(0, 2), rows=[[[8.0, 3.0], [8, 6]], [[1.0, 3.0], [1, 6]]])
    line = trainer.lines.found[2]
    assert (line["train/loss_short"], line["train/loss_long"]) == (1.0, 0.5)
    assert "train/loss_packed" not in line  # there was no such row
    feed(callback, trainer, batch(1, 2), batch(1, 2), rows=[[[8.0, float("nan")], [4, 8]]] * 2)
    assert trainer.lines.found[4]["train/loss_packed"] == 2.0  # the broken row is of another kind


def test_losses_of_a_line_that_is_not_full_survive_a_resume():
    callbacks, trainer = [MixedShares(original_len=4, every=2) for _ in range(2)], Fake()
    for callback in callbacks:
        callback.on_train_start(trainer, SimpleNamespace())  # type: ignore[arg-type]
    feed(callbacks[0], trainer, batch(0), rows=[[[0.1], [1]]])
    callbacks[1].load_state_dict(callbacks[0].state_dict())
    feed(callbacks[1], trainer, batch(0), rows=[[[0.2], [1]]])
    assert trainer.lines.found[2]["train/loss_short"] == (0.1 + 0.2) / 2
    callbacks[1].load_state_dict({"counts": [8, 0, 1, 0, 0]})  # as written before losses were


def test_counting_reads_nothing_on_the_host():
    """Tensors without data: whatever asked for a number would fail."""
    callback = MixedShares(original_len=4)
    for _ in range(2):
        empty = {name: value.to("meta") for name, value in batch(0, 1, 2).items()}
        callback.add(empty, torch.empty(2, 3, dtype=torch.float64, device="meta"))
    assert callback._counts is not None
    with pytest.raises(NotImplementedError, match="meta tensor"):  # reading is what fails
        callback.numbers()


def test_other_batches_are_refused():
    with pytest.raises(
        ConfigError, match=r"^the monitor of mixed rows has none to count; use data=mixed, or callbacks"
    ):
        feed(MixedShares(original_len=4), Fake(), {"tokens": torch.zeros(1, 8)})


def test_it_listens_to_a_real_training(tmp_path):
    from aptlab.data.module import TextData
    from aptlab.data.rows import Mixed
    from aptlab.data.tokenizers import ByteTokenizer
    from aptlab.optim import AdamW, Cosine
    from aptlab.tasks import LanguageTask

    source = Texts(tuple("abcdefghij" * (1 + n % 9) for n in range(60)))
    data = TextData(
        source,
        tokenizer=ByteTokenizer(),
        context=32,
        batch=4,
        rows=Mixed(original_len=8),
        cache=str(tmp_path / "cache"),
    )
    lines = Lines()
    callbacks = [MixedShares(original_len=8, every=3), Monitor(every=3)]
    trainer = helpers.trainer(callbacks=callbacks, limit_val_batches=0, logger=lines)
    torch.manual_seed(0)
    net = make_tiny_decoder(vocab=257, gain=1.0)
    task = LanguageTask(net, optim=AdamW(lr=1e-3), schedule=Cosine())
    trainer.fit(task, datamodule=data)
    assert set(lines.found) == {3, 6}
    assert all(0 < line["mixed/short"] < 1 for line in lines.found.values())
    for line in lines.found.values():
        parts = [line.get(f"mixed/rows/{kind}", 0) * line.get(f"train/loss_{kind}", 0) for kind in KINDS]
        assert sum(parts) == pytest.approx(line["train/loss"], rel=1e-6)  # all rows have equally many targets
    assert task.step_state.wants_rows is False
    assert data.state_dict()["micro_batches"] == 6
