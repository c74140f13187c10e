"""Packed rows equal rows made by hand and by loops."""

from __future__ import annotations

import numpy as np
import pytest

from aptlab.data.rows.packed_table import PackedTable, gather_rows, locate_documents
from aptlab.errors import DataError

EOS = 99
DOCUMENTS = [[1, 2, 3], [4], [], [5, 6, 7, 8, 9, 10]]
STREAM = np.array([1, 2, 3, EOS, 4, EOS, EOS, 5, 6, 7, 8, 9, 10, EOS], dtype=np.uint16)
OFFSETS = np.array([0, 4, 6, 7, 14])


def test_rows_equal_rows_computed_by_hand():
    rows = PackedTable(STREAM, OFFSETS, context=4, document_mask=True)
    assert len(rows) == 3
    batch = rows.rows(np.array([2, 0, 1]))
    assert batch["ids"].tolist() == [2, 0, 1]
    assert batch["tokens"].tolist() == [[6, 7, 8, 9], [1, 2, 3, EOS], [4, EOS, EOS, 5]]
    assert batch["targets"].tolist() == [[7, 8, 9, 10], [2, 3, EOS, 4], [EOS, EOS, 5, 6]]
    assert batch["segments"].tolist() == [[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 2, 3]]
    assert batch["positions"].tolist() == [[0, 1, 2, 3], [0, 1, 2, 3], [0, 1, 0, 0]]
    assert {array.dtype for array in batch.values()} == {np.dtype(np.int64)}


def test_without_document_masks_there_are_no_positions():
    assert set(PackedTable(STREAM, OFFSETS, context=4).rows(np.array([0]))) == {"tokens", "targets", "ids"}


def test_every_token_but_the_first_is_a_target_once():
    batch = PackedTable(STREAM[:13], OFFSETS, context=4).rows(np.arange(3))
    assert batch["targets"].reshape(-1).tolist() == STREAM[1:13].tolist()


@pytest.mark.parametrize("seed", range(20))
def test_documents_equal_a_loop(seed):
    random = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(random.integers(1, 9, size=30))])
    length = int(random.integers(1, 20))
    starts = random.integers(0, offsets[-1] - length, size=7)
    positions, segments = locate_documents(offsets, starts, length)
    for row, start in enumerate(starts):
        position, segment = -1, 1
        for column in range(length):
            fresh = column > 0 and start + column in offsets
            position, segment = (0, segment + 1) if fresh else (position + 1, segment)
            assert (positions[row, column], segments[row, column]) == (position, segment)


def test_gather_reads_no_further_than_the_end():
    assert gather_rows(STREAM, np.array([10]), 4).tolist() == [STREAM[10:].tolist()]
    with pytest.raises(IndexError, match="do not fit into 14 tokens"):
        gather_rows(STREAM, np.array([11]), 4)


def test_a_context_longer_than_the_text_is_refused():
    with pytest.raises(DataError, match=r"context=14 is longer than the val text, .* 14 tokens; largest context: 13"):
        PackedTable(STREAM, OFFSETS, context=14, side="val")
    assert len(PackedTable(STREAM, OFFSETS, context=13)) == 1
