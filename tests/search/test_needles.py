from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from aptlab.data.tokenizers import ByteTokenizer
from aptlab.errors import ConfigError, DataError
from aptlab.search.needles import DIGITS, NEEDLE, QUESTION, make_samples, spread_starts


@dataclass
class Side:
    tokens: np.ndarray = field(default_factory=lambda: np.arange(5000, dtype=np.uint16) % 90 + 160)
    offsets: np.ndarray = field(default_factory=lambda: np.array([0, 600, 2600, 2700, 5000]))


def samples(**asked):
    return make_samples(Side(), ByteTokenizer(), **{"length": 400, "count": 5, **asked})


def test_every_sample_has_exactly_the_length_and_ends_with_the_number_of_its_needle():
    for sample in samples():
        text = ByteTokenizer().decode(sample.tokens)
        number = ByteTokenizer().decode(sample.tokens[sample.answer])
        assert len(sample.tokens) == len(sample.positions) == 400
        assert len(number) == DIGITS
        assert number.isdigit()
        assert text.count(NEEDLE.format(number=number)) == 1
        assert text.endswith(QUESTION + number)


def test_needles_lie_at_stratified_depths():
    for i, sample in enumerate(samples(count=8)):
        begin = ByteTokenizer().decode(sample.tokens.clip(0, 127)).index(NEEDLE[:10])
        assert i / 8 <= sample.depth < (i + 1) / 8
        assert begin == int(sample.depth * (400 - 126))


def test_without_its_needle_a_sample_is_local_text():
    side = Side()
    for sample in samples():
        hay = sample.tokens[sample.tokens >= 160]
        steps = np.diff(hay) % 90
        assert (steps == 1).all()
        assert len(hay) == 400 - 126
    assert side.tokens.min() >= 160


def test_the_same_seed_hides_the_same_numbers():
    one, same, other = samples(), samples(), samples(seed=1)
    assert all((a.tokens == b.tokens).all() for a, b in zip(one, same))
    assert any((a.tokens != b.tokens).any() for a, b in zip(one, other))


def test_plain_text_counts_from_the_given_position_and_never_the_needle():
    for sample in samples(after=100):
        counted = sample.tokens[sample.text]
        assert (counted >= 160).all()
        assert sample.positions[sample.text].min() >= 100
        assert sample.text.sum() == (sample.tokens[100:] >= 160).sum()


def test_a_short_sample_reaches_as_far_as_the_long_one():
    for sample in samples(length=200, span=800):
        assert sample.positions[0] == 0 or sample.depth > 0
        assert sample.positions[-1] == 799
        assert (np.diff(sample.positions) >= 1).all()
        assert (np.diff(sample.positions) > 1).sum() <= 2
        begin = int(sample.depth * (200 - 126))
        assert sample.positions[begin] / 800 == pytest.approx(sample.depth, abs=0.2)
        needle = sample.positions[begin : begin + 74]
        assert (np.diff(needle) == 1).all()


def test_plain_samples_are_text_as_it_is():
    for sample in make_samples(Side(), None, length=300, count=4, after=120):
        assert sample.answer is None
        assert (sample.text == (np.arange(300) >= 120)).all()
        assert (np.diff(sample.tokens) % 90 == 1).all()


def test_texts_lie_inside_documents_where_these_are_long_enough():
    side = Side()
    starts = spread_starts(side, 500, 12)
    document = np.searchsorted(side.offsets, starts, side="right")
    assert (starts + 500 <= side.offsets[document]).all()
    assert len(set(starts.tolist())) == 12


def test_a_text_without_long_documents_is_read_across_them():
    side = Side(offsets=np.arange(0, 5001, 100))
    starts = spread_starts(side, 4000, 4)
    assert starts.tolist() == [0, 250, 500, 750]


def test_what_does_not_fit_is_said_with_the_way_out():
    with pytest.raises(DataError, match=r"the validation text has 5,000 tokens, and a sample takes 6,001; use more"):
        samples(length=6000)
    with pytest.raises(ConfigError, match=r"a needle with its question takes 126 tokens, more than a sample of 100"):
        samples(length=100)
