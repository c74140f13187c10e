"""How many old rows join a batch, how much memory a buffer may take, and what is no rule."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from aptlab.callbacks.replay import ReplayMemory, check_replay
from aptlab.continual import Balanced, BalancedShare, ConstantShare, Herding, NoReplay, Rehearsal, Reservoir
from aptlab.continual.rehearsal import format_bytes, measure_machine_memory
from aptlab.data.images import Digits
from aptlab.data.scenarios import ClassIncremental
from aptlab.data.tasks import ImageTasks, StepSamples
from aptlab.errors import ConfigError
from aptlab.objectives import CrossEntropy


def test_a_share_of_the_whole_batch_is_drawn_beside_the_new_rows():
    half, third = ConstantShare(fraction=0.5), ConstantShare(fraction=1 / 3)
    assert [half.count_rows(8, step=0, task=0), third.count_rows(8, step=0, task=0)] == [8, 4]
    assert ConstantShare(fraction=0.0).count_rows(8, step=0, task=3) == 0
    assert [ConstantShare(every=3).count_rows(4, step=step, task=0) for step in range(5)] == [4, 0, 0, 4, 0]


def test_balanced_shares_give_every_task_the_same_part():
    rule = BalancedShare(most=0.9)
    assert [rule.count_rows(6, step=0, task=task) for task in range(4)] == [0, 6, 12, 18]
    assert BalancedShare(most=0.5).count_rows(6, step=0, task=7) == 6


def test_a_row_that_comes_twice_in_one_batch_is_one_sample():
    """As where a pass of a curriculum ends inside a batch, and the next one begins with a row of its end."""
    memory = ReplayMemory(rule=Rehearsal(policy=Reservoir(), schedule=ConstantShare()))
    memory._seen = np.zeros(8, dtype=bool)
    batches = [[3, 5, 3, 1], [5, 6, 6, 3]]
    found = [memory._take_new(StepSamples(np.array(rows), np.zeros(4, dtype=np.int64))) for rows in batches]
    assert [samples.rows.tolist() for samples in found] == [[3, 5, 1], [6]]
    assert memory._fresh.tolist() == [False, True, False, False], "logits are those of its first place"


def test_memory_is_bounded_by_bytes():
    rule = Rehearsal(policy=Reservoir(), schedule=ConstantShare(), capacity=10, max_bytes=1000)
    assert rule.check_memory(100) == 1000
    with pytest.raises(ConfigError, match=r"capacity=10 takes 1.0 kB, 101 bytes a sample, and max_bytes is 1.0 kB"):
        rule.check_memory(101)
    assert NoReplay().check_memory(10**12) == 0
    assert 2**28 < measure_machine_memory() < 2**50
    assert [format_bytes(size) for size in (12, 1_500, 2_500_000, 3 * 10**9)] == [
        "12 bytes",
        "1.5 kB",
        "2.5 MB",
        "3.0 GB",
    ]


TASK: Any = SimpleNamespace(objective=CrossEntropy())


@pytest.mark.parametrize(
    "rule",
    [
        Rehearsal(policy=Reservoir(), schedule=BalancedShare()),
        Rehearsal(policy=Balanced(), schedule=ConstantShare()),
        Rehearsal(policy=Herding(), schedule=ConstantShare(), update="task"),
    ],
    ids=("share", "group", "update"),
)
def test_what_asks_where_a_task_ends_is_refused_where_that_is_hidden(rule):
    hidden, known = (
        ImageTasks(ClassIncremental(images=Digits(), boundaries=word), batch=4) for word in ("hidden", "known")
    )
    assert check_replay(rule, known, TASK) > 0
    with pytest.raises(ConfigError, match="boundaries=hidden, and this replay asks where a task ends; use"):
        check_replay(rule, hidden, TASK)
