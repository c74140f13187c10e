"""The loaders: batches are a function of their number, ranks share them out, threads come and go."""

from __future__ import annotations

import itertools
import threading

import numpy as np
import pytest
import torch

from aptlab.data.loader import RowLoader, ValLoader, prefetch_batches
from aptlab.data.rows import BatchPlan
from aptlab.data.rows.epochs import EpochRows, ValidationRows
from aptlab.data.rows.packed_table import PackedTable
from aptlab.errors import ConfigError

CONTEXT, COUNT = 8, 53


@pytest.fixture(scope="module")
def rows():
    tokens = np.arange(COUNT * CONTEXT + 3, dtype=np.uint16)
    return PackedTable(tokens, np.array([0, 100, 117, len(tokens)]), CONTEXT, document_mask=True)


def loader(rows, *, start=0, prefetch=0, **plan):
    return RowLoader(EpochRows(rows, BatchPlan(**{"batch": 4, "seed": 1, **plan})), start=start, prefetch=prefetch)


def val_loader(rows, *, batch, limit=None, rank=0, world=1):
    return ValLoader(ValidationRows(rows, BatchPlan(batch=batch, rank=rank, world=world), limit=limit))


def take(loader, count):
    return list(itertools.islice(iter(loader), count))


def ids(loader, count):
    return torch.stack([batch["ids"] for batch in take(loader, count)])


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_a_batch_holds_the_rows_it_names(rows):
    batch = loader(rows).batch_at(7)
    expected = batch["ids"][:, None] * CONTEXT + torch.arange(CONTEXT)
    assert torch.equal(batch["tokens"], expected)
    assert torch.equal(batch["targets"], expected + 1)
    assert set(batch) == {"tokens", "targets", "ids", "positions", "segments"}
    assert {tensor.dtype for tensor in batch.values()} == {torch.int64}


def test_each_epoch_shows_every_row_once_but_the_remainder_and_never_ends(rows):
    per_epoch = loader(rows).rows.batches_per_epoch
    assert per_epoch == COUNT // 4
    epochs = ids(loader(rows), 5 * per_epoch).reshape(5, -1)
    assert [len(set(epoch.tolist())) for epoch in epochs] == [COUNT // 4 * 4] * 5
    assert len({tuple(epoch.tolist()) for epoch in epochs}) == 5
    with pytest.raises(TypeError):
        len(loader(rows))


@pytest.mark.parametrize("start", [0, 1, 12, 13, 14, 40])
@pytest.mark.parametrize("prefetch", [0, 3])
def test_resuming_at_a_number_gives_exactly_the_same_batches(rows, start, prefetch):
    whole = take(loader(rows), start + 20)
    resumed = take(loader(rows, start=start, prefetch=prefetch), 20)
    assert all(same(a, b) for a, b in zip(whole[start:], resumed, strict=True))


@pytest.mark.parametrize("world", [2, 3, 4])
def test_ranks_share_out_each_global_batch_without_overlap(rows, world):
    """W ranks with B rows see, together and in order, what one rank with W*B rows sees."""
    together = torch.cat([ids(loader(rows, rank=r, world=world), 30) for r in range(world)], dim=1)
    assert torch.equal(together, ids(loader(rows, batch=4 * world), 30))
    assert all(len(set(batch.tolist())) == 4 * world for batch in together)


def test_the_seed_decides_the_order(rows):
    assert torch.equal(ids(loader(rows, seed=5), 9), ids(loader(rows, seed=5), 9))
    assert not torch.equal(ids(loader(rows, seed=5), 9), ids(loader(rows, seed=6), 9))


def test_a_batch_larger_than_an_epoch_is_refused(rows):
    with pytest.raises(ConfigError, match=r"^batch=54 on 1 device needs 54 rows, but an epoch has 53 .*batch: 53"):
        loader(rows, batch=54)
    with pytest.raises(ConfigError, match=r"^batch=27 on 2 devices needs 54 rows.*context=8; largest batch: 26"):
        loader(rows, batch=27, world=2)
    assert loader(rows, batch=53).rows.batches_per_epoch == 1


def loader_threads():
    return [thread for thread in threading.enumerate() if thread.name == "aptlab-loader"]


def test_closing_a_prefetching_loader_ends_its_thread(rows):
    batches = iter(loader(rows, prefetch=2))
    next(batches)
    assert len(loader_threads()) == 1
    batches.close()
    assert loader_threads() == []


def test_an_exception_in_the_thread_is_raised_where_the_batch_is_wanted():
    def broken():
        yield {"ids": torch.zeros(1)}
        raise RuntimeError("the disk is gone")

    batches = prefetch_batches(broken(), 2)
    next(batches)
    with pytest.raises(RuntimeError, match="the disk is gone"):
        next(batches)
    assert loader_threads() == []


def test_a_finite_stream_ends_when_made_ahead():
    batches = [{"ids": torch.tensor([n])} for n in range(5)]
    assert list(prefetch_batches(iter(batches), 2)) == batches
    assert loader_threads() == []


def test_validation_covers_every_row_once_in_order_with_a_length(rows):
    val = val_loader(rows, batch=4)
    batches = list(val)
    assert len(batches) == len(val) == 14
    assert torch.cat([batch["ids"] for batch in batches]).tolist() == [*range(53), -1, -1, -1]
    assert all(same(a, b) for a, b in zip(batches, val, strict=True))
    assert val.rows.tokens == 53 * CONTEXT == sum(int((batch["targets"] != -100).sum()) for batch in batches)


def test_rows_that_fill_up_a_batch_are_ignored(rows):
    last = list(val_loader(rows, batch=4))[-1]
    assert last["tokens"].shape == (4, CONTEXT)
    assert (last["targets"][1:] == -100).all()
    assert (last["targets"][0] != -100).all()
    assert (last["segments"] > 0).all()


@pytest.mark.parametrize("world", [2, 3, 5])
@pytest.mark.parametrize("limit", [None, 1, 20])
def test_validation_sees_the_same_rows_for_every_number_of_ranks(rows, world, limit):
    ranks = [list(val_loader(rows, batch=4, limit=limit, rank=r, world=world)) for r in range(world)]
    assert len({len(batches) for batches in ranks}) == 1
    found = torch.cat([batch["ids"] for batches in ranks for batch in batches])
    alone = torch.cat([batch["ids"] for batch in val_loader(rows, batch=4, limit=limit)])
    assert sorted(found[found >= 0].tolist()) == alone[alone >= 0].tolist()


def test_a_limited_validation_is_spread_over_the_text(rows):
    val = val_loader(rows, batch=5, limit=10)
    assert torch.cat([batch["ids"] for batch in val]).tolist() == [n * 53 // 10 for n in range(10)]
    assert val.rows.tokens == 10 * CONTEXT
