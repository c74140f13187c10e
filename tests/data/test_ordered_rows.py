"""Rows by number, and training in an order that is given from outside."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from tests import helpers
from tests.data.conftest import Texts

from aptlab.data.module import TextData
from aptlab.data.rows import Mixed
from aptlab.data.rows.numbered import OrderedData
from aptlab.data.rows.order import RowOrder
from aptlab.data.store.split import Split
from aptlab.data.tokenizers import ByteTokenizer
from aptlab.errors import ConfigError
from aptlab.optim import AdamW, Cosine
from aptlab.tasks import LanguageTask
from aptlab.testing import make_tiny_decoder

TEXTS = tuple(f"{number} " + "abcdefg " * (1 + 5 * (number % 4)) for number in range(40))


class Backwards(RowOrder):
    """The last row first; what was asked for is kept, with how many batches were trained on then."""

    name = "backwards"

    def __init__(self, count: int) -> None:
        self.count, self.trained = count, 0
        self.asked: list[tuple[int, list[int]]] = []

    def choose_rows(self, positions: np.ndarray) -> np.ndarray:
        self.asked.append((self.trained, positions.tolist()))
        return self.count - 1 - positions % self.count


class Watch(Callback):
    def __init__(self, order: Backwards) -> None:
        self.order = order
        self.ids: list[list[int]] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.order.trained += 1
        self.ids.append(batch["ids"].tolist())


def make_data(folder: Any, **rest: Any) -> TextData:
    settings = {"context": 16, "batch": 3, "split": Split(0.2), "cache": str(folder), "val_batches": 1} | rest
    return TextData(Texts(TEXTS), tokenizer=ByteTokenizer(), **settings)


def test_a_batch_is_made_when_it_is_trained_on_and_not_before(tmp_path):
    data = make_data(tmp_path)
    assert isinstance(data, OrderedData)
    order = Backwards(count := len(data.number_rows("train")))
    data.set_order(order)
    watch = Watch(order)
    task = LanguageTask(make_tiny_decoder(vocab=257), optim=AdamW(lr=1e-3), schedule=Cosine())
    helpers.trainer(callbacks=[watch], max_steps=4, val_check_interval=2).fit(task, datamodule=data)
    assert order.asked == [(n, [3 * n, 3 * n + 1, 3 * n + 2]) for n in range(4)], "asked before its time"
    assert watch.ids == [[count - 1 - 3 * n - i for i in range(3)] for n in range(4)]
    assert data.count_given_rows() == 12
    assert data.state_dict()["order"] == "backwards"


def test_another_order_is_told_of_on_resume(tmp_path, caplog):
    state = make_data(tmp_path).state_dict()
    other = make_data(tmp_path)
    other.set_order(Backwards(3))
    other.load_state_dict(state)
    assert "resuming with rows in the order backwards in place of none: rows may repeat" in caplog.text


def test_rows_say_what_they_hold(tmp_path):
    data = make_data(tmp_path)
    rows = data.number_rows("train")
    contents = rows.read_contents(np.arange(len(rows)))
    side = data.store.train
    document = np.repeat(np.arange(len(side.offsets) - 1), np.diff(side.offsets))
    for number in range(len(rows)):
        place = slice(number * 16, number * 16 + 16)
        assert contents.lengths[number] == pytest.approx(np.diff(side.offsets)[document[place]].mean(), rel=1e-12)
        np.testing.assert_array_equal(contents.tokens[number], side.tokens[place])
    texts = contents.list_texts()
    assert texts is not None
    assert "abcdefg" in texts[0]
    named = rows.describe_row(len(rows) - 1)
    assert named.startswith(f"row {len(rows) - 1} of the train text (document '")
    assert rows.key != data.number_rows("val").key
    assert rows.key == make_data(tmp_path).number_rows("train").key
    assert sum(len(chunk.tokens) for chunk in rows.walk_contents(5)) == len(rows)


def test_two_ranks_share_out_what_one_has(tmp_path):
    from aptlab.data.rows import BatchPlan
    from aptlab.data.rows.ordered import OrderedRows

    data = make_data(tmp_path)
    table = data.rows.make_training_table(data.store.train, context=16)
    order = Backwards(len(table))
    one = OrderedRows(table, BatchPlan(batch=4), order)
    two = [OrderedRows(table, BatchPlan(batch=2, rank=rank, world=2), order) for rank in range(2)]
    for number in range(3):
        shared = np.concatenate([rows.batch(number)["ids"] for rows in two])
        np.testing.assert_array_equal(shared, one.batch(number)["ids"])
    assert one.convert_number(3, global_batch=6) == 4
    with pytest.raises(ConfigError, match=r"^batch=400 on 1 device needs 400 rows"):
        OrderedRows(table, BatchPlan(batch=400), order)


def test_rows_of_several_kinds_have_no_numbers(tmp_path):
    data = make_data(tmp_path, context=32, rows=Mixed(original_len=8))
    with pytest.raises(ConfigError, match=r"^Mixed rows have an order of their own.*use data=packed, or curriculum="):
        data.number_rows("train")
    assert torch.is_tensor(next(iter(data.train_dataloader()))["tokens"])
