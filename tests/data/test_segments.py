"""Rows that read documents in order. Legend: R streams, L tokens of a row."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, ClassVar, cast

import numpy as np
import pytest

from aptlab.data.module import TextData
from aptlab.data.rows import BatchPlan, Packed, RowKind, SegmentPlan, Segments
from aptlab.data.rows.streams import StreamRows, cut_pieces, deal_pieces
from aptlab.data.store.cache import TokenSide
from aptlab.data.tokenizers import ByteTokenizer
from aptlab.errors import ConfigError, DataError
from aptlab.testing import RowsContract
from aptlab.training.memory import advise_ordered_rows

SIZES = (40, 7, 90, 16, 33, 5, 120, 64, 9, 51, 28, 77)


class TestSegments(RowsContract):
    kind: RowKind = Segments(segments=2, val_segments=3)
    config: ClassVar[dict[str, Any] | None] = {
        "_target_": "aptlab.data.rows.Segments",
        "segments": 2,
        "carry": True,
        "val_segments": 3,
    }


def make_side(sizes: tuple[int, ...] = SIZES) -> TokenSide:
    """A text whose tokens are all different: a token is its own place."""
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    return TokenSide(np.arange(offsets[-1], dtype=np.uint16), offsets, np.diff(offsets))


def make_rows(sizes: tuple[int, ...] = SIZES, *, batch: int = 3, seed: int = 0, segments: int = 2) -> StreamRows:
    return StreamRows(make_side(sizes), BatchPlan(batch=batch, seed=seed), context=8, segments=segments)


def read_streams(rows: StreamRows, batches: int) -> dict[str, np.ndarray]:
    """All of the first batches behind each other, [R, batches * L]."""
    read = [rows.batch(number) for number in range(batches)]
    return {name: np.concatenate([batch[name] for batch in read], 1) for name in read[0] if name != "ids"}


@pytest.mark.parametrize("sizes", [SIZES, (400, 3, 3, 3, 3), (1,) * 200], ids=["mixed", "one long", "ones"])
def test_streams_read_whole_documents_one_after_the_other(sizes):
    rows = make_rows(sizes)
    read = read_streams(rows, 40)
    pieces = cut_pieces(rows.side.offsets, sum(sizes) // 3)
    ends = dict(zip(pieces.starts.tolist(), (pieces.starts + pieces.sizes).tolist(), strict=True))
    assert np.array_equal(read["tokens"][:, 1:], read["targets"][:, :-1])
    for tokens, positions, names in zip(read["tokens"], read["positions"], read["segments"], strict=True):
        begins = np.flatnonzero(positions == 0)
        assert begins[0] == 0
        for first, last in zip(begins, np.append(begins[1:], len(tokens)), strict=True):
            size = ends[int(tokens[first])] - int(tokens[first])
            assert last - first == size or last == len(tokens)
            assert tokens[first:last].tolist() == list(range(tokens[first], tokens[first] + last - first))
            assert positions[first:last].tolist() == list(range(last - first))
            assert len(set(names[first:last].tolist())) == 1
        assert (names[begins[1:]] != names[begins[1:] - 1]).all()
        assert names.min() > 0


def test_streams_own_all_documents_and_each_pass_shows_them_once_in_another_order():
    rows = make_rows(batch=2)
    stream, other = rows.streams
    assert sorted([*stream.mine, *other.mine]) == list(range(len(SIZES)))
    orders = []
    for number in range(2):
        places, _, names = stream.locate(number * stream.tokens, stream.tokens)
        assert len(np.unique(places)) == stream.tokens
        orders.append(places[np.flatnonzero(np.diff(names, prepend=0))].tolist())
    assert sorted(orders[0]) == sorted(orders[1])
    assert orders[0] != orders[1]


def test_seeds_deal_small_documents_out_anew():
    owned = [make_rows((1,) * 200, seed=seed).streams[0].mine.tolist() for seed in (0, 1)]
    assert owned[0] != owned[1]


@pytest.mark.parametrize("streams", [1, 2, 7, 30])
@pytest.mark.parametrize("seed", range(3))
def test_streams_are_as_long_as_each_other_up_to_a_document(streams, seed):
    generator = np.random.default_rng(seed)
    sizes = (generator.pareto(1.0, 3000) * 20 + 1).astype(np.int64)
    pieces = cut_pieces(np.concatenate([[0], np.cumsum(sizes)]), int(sizes.sum()) // streams)
    assert pieces.sizes.sum() == sizes.sum()
    assert pieces.sizes.max() <= sizes.sum() // streams
    held = np.bincount(deal_pieces(pieces.sizes, streams, seed=seed), weights=pieces.sizes, minlength=streams)
    assert held.max() - held.min() <= pieces.sizes.max()


def test_long_documents_are_cut_into_equal_parts_and_empty_ones_are_left_out():
    pieces = cut_pieces(np.array([0, 10, 10, 14]), 4)
    assert pieces.starts.tolist() == [0, 3, 6, 10]
    assert pieces.sizes.tolist() == [3, 3, 4, 4]


def test_cut_documents_are_told(caplog):
    with caplog.at_level("INFO", "aptlab"):
        make_rows((400, 3, 3, 3, 3))
    assert "longer than 1/3 of the text are cut, so that 3 rows have something to read: 2 parts more" in caplog.text


def test_validation_rows_are_several_windows_that_begin_with_nothing():
    table = Segments(segments=1, val_segments=4).make_validation_table(make_side(), context=8)
    row = table.rows(np.array([1]))
    assert row["tokens"].tolist() == [list(range(32, 64))]
    assert row["positions"][0, :16].tolist() == [*range(8), *range(7), 0]
    assert row["segments"][0, 0] == 1


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: make_rows(batch=40),
            ConfigError,
            r"needs 40 rows, but an epoch has 33 rows of context=2 x 8; largest",
        ),
        (
            lambda: Segments(val_segments=99).make_validation_table(make_side(), context=8),
            DataError,
            r"val_segments=99: so many windows of context=8 are longer than the val text, .*at most 67, or use",
        ),
        (
            lambda: Segments().make_training_table(make_side(), context=8),
            ConfigError,
            r"Segments rows have an order of their own.*use data=packed, or curriculum=none",
        ),
        (lambda: Segments(segments=0), ConfigError, r"segments"),
    ],
)
def test_mistakes_are_told(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_sizes_are_told_before_the_text_is_read():
    (problem,) = Segments(segments=4).find_size_problems(100, context=8, plan=BatchPlan(batch=4))
    assert "an epoch has 3 rows of context=4 x 8; largest batch: 3" in problem
    assert not list(Segments(segments=4).find_size_problems(1000, context=8, plan=BatchPlan(batch=4)))


def test_a_memory_without_rows_in_order_is_told(texts, caplog):
    packed = TextData(texts, ByteTokenizer(), context=16, batch=2)
    ordered = TextData(texts, ByteTokenizer(), context=16, batch=2, rows=Segments())
    for choices, data in (({"memory": "none"}, packed), ({}, packed), ({"memory": "xl"}, ordered)):
        advise_ordered_rows(cast(Any, SimpleNamespace(choices=choices)), data)
    assert caplog.text == ""
    advise_ordered_rows(cast(Any, SimpleNamespace(choices={"memory": "xl", "data": "packed"})), packed)
    assert "memory=xl keeps what it has read for the rows that follow, and rows of data=packed are in no" in caplog.text
    assert "as with data.segments=8" in caplog.text


def test_data_know_how_long_a_row_is_and_how_it_is_read(texts):
    data = TextData(texts, ByteTokenizer(), context=16, batch=2, rows=Segments(segments=3, carry=False))
    assert (data.row_tokens, data.segment_plan) == (48, SegmentPlan(window=16, carry=False))
    assert TextData(texts, ByteTokenizer(), context=16, batch=2, rows=Packed()).segment_plan is None
    data.prepare_data()
    assert next(iter(data.train_dataloader()))["tokens"].shape == (2, 48)
    assert next(iter(data.val_dataloader()))["tokens"].shape == (2, 128)
