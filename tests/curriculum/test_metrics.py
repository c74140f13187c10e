"""Difficulties: formulas, what is kept, and what is said of a row that cannot be measured."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.reference import curriculum as reference

from aptlab.curriculum import (
    MTLD,
    CompressionRatio,
    DifficultyMetric,
    ModelLoss,
    SortedOrder,
    Stages,
    TokenCount,
    UnigramNLL,
)
from aptlab.curriculum.metrics.mtld import WORD, compute_mtld
from aptlab.curriculum.scores import open_or_measure_scores, prepare_course
from aptlab.data.rows.numbered import NumberedRows, RowContents, Section
from aptlab.errors import ConfigError, DataError

TEXTS = ["the cat sat on the mat and the dog sat on the cat", "one two three four", "a a a a a a a a", "", "猫が好き猫"]


class ListRows(NumberedRows):
    """Rows out of a list of texts, a token per letter, or of numbers."""

    def __init__(self, texts: list[str], *, text: bool = True, key: str = "rows") -> None:
        self.texts, self.text, self.key = texts, text, key

    def __len__(self) -> int:
        return len(self.texts)

    def read_rows(self, ids: np.ndarray) -> dict[str, np.ndarray]:
        raise AssertionError("no metric of the text needs a batch")

    def read_contents(self, ids: np.ndarray) -> RowContents:
        tokens = [np.array([ord(letter) % 61 for letter in self.texts[row]], dtype=np.int64) for row in ids]
        told = {tuple(one.tolist()): self.texts[row] for one, row in zip(tokens, ids, strict=True)}
        lengths = np.array([len(one) for one in tokens], dtype=np.float64)
        decode = (lambda one: told[tuple(one.tolist())]) if self.text else None
        return RowContents(ids=ids, tokens=tokens, lengths=lengths, decode=decode)

    def describe_row(self, number: int) -> str:
        return f"row {number} (text {self.texts[number]!r})"


def measure(metric: DifficultyMetric, rows: ListRows) -> list[float]:
    return metric.measure(rows.read_contents(np.arange(len(rows))), metric.fit(rows)).tolist()


def test_mtld_is_that_of_the_paper():
    generator = np.random.default_rng(0)
    for count in (1, 2, 5, 30, 400):
        for kinds in (2, 9, 200):
            words = [f"w{number}" for number in generator.integers(0, kinds, count)]
            assert compute_mtld(words, 0.72) == pytest.approx(reference.mtld(words), rel=1e-12)
    # "of the people by the people for the people": the ratio of the first six words is .667, a factor.
    lincoln = ["of", "the", "people", "by", "the", "people", "for", "the", "people"]
    assert reference.mtld(lincoln) == compute_mtld(lincoln, 0.72) == 9 / 1.0


def test_mtld_of_texts():
    values = measure(MTLD(), ListRows(TEXTS))
    assert values == [pytest.approx(reference.mtld(WORD.findall(text)) if text else 0.0) for text in TEXTS]
    assert values[1] == 4.0  # no word comes twice
    assert WORD.findall("snake_case, don't 猫が x1") == ["snake", "case", "don", "t", "猫", "が", "x1"]
    with pytest.raises(ConfigError, match=r"^MTLD counts words, and these rows are no text; take CompressionRatio"):
        measure(MTLD(), ListRows(TEXTS, text=False))


def test_other_metrics_are_their_formulas():
    rows = ListRows(TEXTS)
    assert measure(TokenCount(), rows) == [len(text) for text in TEXTS]
    ratios = [len(zlib.compress(text.encode(), 6)) / len(text.encode()) if text else 0 for text in TEXTS]
    assert measure(CompressionRatio(), rows) == ratios
    tokens = [[ord(letter) % 61 for letter in text] for text in TEXTS]
    expected = [reference.unigram_nll(tokens, row) if row else 0.0 for row in tokens]
    assert measure(UnigramNLL(), rows) == pytest.approx(expected, rel=1e-12)
    assert measure(CompressionRatio(), ListRows(TEXTS, text=False))[2] < 1  # eight equal numbers
    fitted = UnigramNLL().fit(rows)
    new = UnigramNLL().measure(RowContents(ids=np.array([0]), tokens=[np.array([10_000])], lengths=np.ones(1)), fitted)
    assert new.tolist() == [pytest.approx(reference.unigram_nll(tokens, [10_000]))]


def test_a_loss_of_the_model_is_not_read_from_text():
    with pytest.raises(ConfigError, match=r"^ModelLoss is measured by the model while it is trained"):
        measure(ModelLoss(), ListRows(TEXTS))


@dataclass(frozen=True, kw_only=True)
class Counting(DifficultyMetric):
    """Counts how often it measures; fails as it is told."""

    fails: str = ""

    def measure(self, contents: RowContents, fitted: Any) -> np.ndarray:
        asked = Path("asked")
        asked.write_text((asked.read_text() if asked.exists() else "") + "x")
        texts = contents.list_texts() or []
        if self.fails == "raises" and any(text.startswith("one") for text in texts):
            raise KeyError("one")
        if self.fails == "together" and len(texts) > 1:
            raise KeyError("many")
        if self.fails == "shape":
            return np.zeros((len(texts), 2))
        return np.array([np.nan if self.fails == "nan" and not text else len(text) for text in texts])


@pytest.mark.parametrize(
    ("fails", "message"),
    [
        ("raises", r"^the metric mine \(Counting\) failed with KeyError: 'one' on row 1 \(text 'one two three four'\)"),
        ("nan", r"^the metric mine \(Counting\) gave nan, which is no finite number, on row 3 .* metrics\.mine=null"),
        ("shape", r"^the metric mine \(Counting\) gave \[1, 2\] numbers in place of \[1\] on row 0"),
        ("together", r"^the metric mine \(Counting\) failed .* on rows 0 to 4 together, and on none of them alone"),
    ],
)
def test_a_metric_that_fails_names_itself_and_the_row(fails, message, tmp_path):
    rows = ListRows(TEXTS)
    with pytest.raises(DataError, match=message):
        open_or_measure_scores("mine", Counting(fails=fails), rows, train=rows, folder=tmp_path)
    assert not list(tmp_path.glob("*.f8"))


def test_difficulties_are_measured_once_and_kept_with_a_checksum(tmp_path, caplog):
    rows, asked = ListRows(TEXTS), Path("asked")
    first = open_or_measure_scores("mine", Counting(), rows, train=rows, folder=tmp_path)
    again = open_or_measure_scores("mine", Counting(), rows, train=rows, folder=tmp_path)
    assert again.tolist() == first.tolist() == [len(text) for text in TEXTS]
    assert asked.read_text() == "x"
    open_or_measure_scores("mine", Counting(), ListRows(TEXTS, key="others"), train=rows, folder=tmp_path)
    assert asked.read_text() == "xx", "other rows were taken for these"
    for kept in tmp_path.glob("*.f8"):
        kept.write_bytes(kept.read_bytes()[:-1] + b"\1")
    mended = open_or_measure_scores("mine", Counting(), rows, train=rows, folder=tmp_path)
    assert mended.tolist() == first.tolist()
    assert "are damaged: they are not what was written; measuring again" in caplog.text
    for record in tmp_path.glob("*.json"):
        record.write_text(json.dumps({**json.loads(record.read_text()), "rows": 7}))
    assert open_or_measure_scores("mine", Counting(), rows, train=rows, folder=tmp_path).tolist() == first.tolist()
    assert "its values do not have its checksum" in caplog.text


def test_a_folder_that_cannot_be_written_is_told_of(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    rows = ListRows(TEXTS)
    found = open_or_measure_scores("mine", Counting(), rows, train=rows, folder=tmp_path / "file" / "difficulty")
    assert found[1] == len(TEXTS[1])
    assert "they are measured at every start" in caplog.text


class NumberedData:
    """Data as far as a course looks at it."""

    def __init__(self, folder: Path, texts: list[str]) -> None:
        self.store_folder, self.texts = folder, texts

    def number_rows(self, side: str) -> ListRows:
        return ListRows(self.texts, key=side)

    def set_order(self, order: object) -> None: ...
    def count_given_rows(self) -> int:
        return 0

    def count_global_batch(self) -> int:
        return 1


def test_a_course_is_made_of_any_data_that_numbers_its_rows(tmp_path, caplog):
    course = prepare_course(SortedOrder(metric=TokenCount()), NumberedData(tmp_path, ["ab", "cd"]), seed=3)
    assert (course.rows, course.seed, course.scores["metric"].tolist()) == (2, 3, [2.0, 2.0])
    assert "metric is 2 for each of the 2 training rows, so its order is random" in caplog.text
    with pytest.raises(ConfigError, match=r"^object does not number its rows.*use curriculum=none, or data that does"):
        prepare_course(SortedOrder(), object(), seed=0)


class SectionedTexts(NumberedData):
    """Two tasks of two rows each, and one validation row of each."""

    def number_rows(self, side: str) -> ListRows:
        return ListRows(self.texts if side == "train" else ["a", "z"], key=f"{side}{self.texts}")

    def list_sections(self) -> list[Section]:
        spans = {"one": ((0, 2), (0, 1)), "two": ((2, 2), (1, 1))}
        return [Section(name=name, begin=0, end=9, train=train, val=val) for name, (train, val) in spans.items()]


def test_a_metric_knows_the_tasks_up_to_its_own_and_none_to_come(tmp_path):
    texts = ["abc", "aab", "xyz", "azz"]
    course = prepare_course(Stages(), SectionedTexts(tmp_path, texts), seed=3)
    tokens = [[ord(letter) % 61 for letter in text] for text in [*texts, "a", "z"]]
    seen = [tokens[:2], tokens[:2], tokens[:4], tokens[:4]]
    expected = [reference.unigram_nll(known, row) for known, row in zip(seen, tokens, strict=False)]
    assert course.scores["metric"].tolist() == pytest.approx(expected, rel=1e-12)
    expected = [reference.unigram_nll(tokens[:2], tokens[4]), reference.unigram_nll(tokens[:4], tokens[5])]
    assert course.val_scores["metric"].tolist() == pytest.approx(expected, rel=1e-12)
    other = prepare_course(SortedOrder(), SectionedTexts(tmp_path, [*texts[:2], "qqqq", "r"]), seed=3)
    assert other.scores["metric"][:2].tolist() == course.scores["metric"][:2].tolist()
    rule, texts = SortedOrder(metric=Counting(fails="raises")), ["a", "b", "one two", "c"]
    with pytest.raises(DataError, match=r"on row 2 \(text 'one two"):
        prepare_course(rule, SectionedTexts(tmp_path, texts), seed=3)
