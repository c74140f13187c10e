"""The table of lengths compares the same target tokens."""

from __future__ import annotations

import numpy as np
import pytest

from aptlab.data.rows.windows import Windows
from aptlab.data.store.cache import TokenSide
from aptlab.errors import ConfigError, DataError

MULTIPLES = (1, 2, 4, 8)


def side(*lengths, bytes_per_token=3):
    """Documents of so many tokens, eos counted; token i of the stream is i."""
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    sizes = np.array(lengths) * bytes_per_token
    return TokenSide(np.arange(offsets[-1], dtype=np.uint32), offsets, sizes)


def targets(windows, multiple, tokens=64):
    return np.concatenate([batch["targets"].reshape(-1) for batch in windows.batches(multiple, tokens=tokens)])


@pytest.mark.parametrize("lengths", [(500, 700), (10,) * 90, (10, 200, 10, 40, 300, 5), (65,), (64, 64)])
@pytest.mark.parametrize("multiples", [MULTIPLES, (1, 3), (2, 3)])
def test_every_multiple_covers_exactly_the_same_targets_once(lengths, multiples):
    windows = Windows(side(*lengths), context=8, multiples=multiples, tokens=300)
    covered = [targets(windows, multiple) for multiple in multiples]
    assert all(np.array_equal(covered[0], other) for other in covered)
    assert len(set(covered[0])) == len(covered[0]) == windows.meta["tokens"]


def test_a_window_is_an_unbroken_part_of_the_text_and_targets_are_shifted_by_one():
    windows = Windows(side(500, 700), context=8, multiples=MULTIPLES)
    for multiple in MULTIPLES:
        for batch in windows.batches(multiple, tokens=64):
            assert batch["tokens"].shape[1] == 8 * multiple
            assert (batch["targets"] == batch["tokens"] + 1).all()
            assert (batch["tokens"].diff(dim=1) == 1).all()
            assert batch["tokens"].numel() <= 64


def test_segments_stay_inside_documents_where_these_are_long_enough():
    text = side(30, 200, 64, 300, 65)
    windows = Windows(text, context=8, multiples=MULTIPLES, tokens=64 * 8)
    document = np.searchsorted(text.offsets, [windows.starts, windows.starts + 64], side="right")
    assert windows.meta["inside_documents"] == windows.meta["segments"] == 8
    assert np.array_equal(document[0], document[1])
    fewer = Windows(text, context=8, multiples=MULTIPLES, tokens=64 * 3)
    assert fewer.meta["segments"] == 3
    assert set(fewer.starts) <= set(windows.starts)


def test_the_stream_fills_up_when_documents_are_short_and_meta_says_so():
    only_stream = Windows(side(*(10,) * 90), context=8, multiples=MULTIPLES, tokens=64 * 5).meta
    assert (only_stream["segments"], only_stream["inside_documents"]) == (5, 0)
    mixed = Windows(side(*(10,) * 30, 100, *(10,) * 30), context=8, multiples=MULTIPLES, tokens=64 * 5).meta
    assert (mixed["segments"], mixed["inside_documents"]) == (5, 1)


def test_bytes_per_token_follows_the_documents_that_were_chosen():
    text = side(200, 200)
    text.sizes[:] = [400, 1000]
    both = Windows(text, context=8, multiples=MULTIPLES, tokens=64 * 6)
    assert both.meta["bytes_per_token"] == pytest.approx((2 + 5) / 2)
    across = Windows(side(33, 32), context=8, multiples=MULTIPLES)
    assert across.meta["bytes_per_token"] == pytest.approx(3)


def test_bytes_per_token_are_those_of_exactly_the_targets():
    text = side(200, 200)
    token_bytes = np.where(np.arange(400) % 3 == 0, 4.0, 1.0)
    windows = Windows(text, context=8, multiples=MULTIPLES, tokens=64 * 4, token_bytes=token_bytes)
    found = targets(windows, 1)
    assert windows.meta["bytes_per_token"] == token_bytes[found].sum() / len(found)


def test_the_choice_is_the_same_each_time():
    first, second = (Windows(side(500, 700), context=8, tokens=256) for _ in range(2))
    assert np.array_equal(first.starts, second.starts)
    assert first.meta == second.meta


def test_a_text_too_short_or_a_bad_multiple_is_refused():
    with pytest.raises(
        DataError, match=r"has 40 tokens, too few for a length of 64 \(8 x context=8\); largest multiple: 4"
    ):
        Windows(side(40), context=8, multiples=MULTIPLES)
    with pytest.raises(ConfigError, match=r"length multiples \[0, 1\] must be whole numbers >= 1"):
        Windows(side(40), context=8, multiples=(0, 1))
    with pytest.raises(ConfigError, match=r"length multiple 3 was not prepared; there are \[1, 2\]"):
        next(Windows(side(40), context=8, multiples=(1, 2)).batches(3))
