"""Rows of a source and a target: from files, from text, from letters, and out of corrupted spans."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from tests.reference.encoder_decoder import corrupt

from aptlab.data.module import TextData
from aptlab.data.pairs import PairData
from aptlab.data.rows import BatchPlan, RowKind, SpanCorruption
from aptlab.data.rows.span_table import divide_uniformly
from aptlab.data.sources import PairFiles, RandomPairs, Source, TextFiles, TextPairs
from aptlab.data.store.cache import TokenSide
from aptlab.data.store.split import Split
from aptlab.data.tokenizers import BPE, ByteTokenizer
from aptlab.errors import CheckpointError, ConfigError, DataError
from aptlab.objectives import IGNORE
from aptlab.testing import RowsContract, SourceContract

EOS = ByteTokenizer().eos
ROWS = [("one", "eins"), ("two", "zwei"), ("三", "three"), ("", "nothing"), ("four", "vier")]


def write_pairs(path: Path, rows=ROWS) -> Path:
    lines = [json.dumps({"source": source, "t": {"de": target}}, ensure_ascii=False) for source, target in rows]
    path.write_text("\n".join(lines) + "\n")
    return path


class TestPairFiles(SourceContract):
    @pytest.fixture(autouse=True)
    def _files(self, tmp_path: Path) -> None:
        self.path = write_pairs(tmp_path / "a.jsonl")

    def make_source(self) -> Source:
        return PairFiles(files=str(self.path), target="t.de", on_bad="skip")

    def make_changed(self) -> Source:
        write_pairs(self.path, [*ROWS, ("five", "fünf")])
        return self.make_source()

    def test_pairs_are_the_rows_with_both_fields(self) -> None:
        notes: list[str] = []
        found = list(PairFiles(files=str(self.path), target="t.de").pairs(notes.append))
        assert [(pair.source, pair.target) for pair in found] == [row for row in ROWS if all(row)]
        assert found[2].name == "a.jsonl:3"
        assert notes == [f"left out 1 without any text; the first: {self.path}, line 4: field 'source' is empty"]


class TestTextPairs(SourceContract):
    @pytest.fixture(autouse=True)
    def _files(self, tmp_path: Path) -> None:
        self.path = tmp_path / "a.txt"
        self.path.write_text("Hello there\n\n  你好，世界  \n")

    def make_source(self) -> Source:
        return TextPairs(TextFiles(files=str(self.path)), longest=8)

    def make_changed(self) -> Source:
        return TextPairs(TextFiles(files=str(self.path)), longest=9)

    def test_lines_are_reversed_by_characters(self) -> None:
        found = [(pair.source, pair.target) for pair in self.make_source().pairs()]  # type: ignore[attr-defined]
        assert found == [("Hello th", "ht olleH"), ("你好，世界", "界世，好你")]


class TestRandomPairs(SourceContract):
    config: ClassVar[dict[str, Any] | None] = {
        "_target_": "aptlab.data.sources.RandomPairs",
        "order": "reverse",
        "count": 9,
    }

    def make_source(self) -> Source:
        return RandomPairs(order="reverse", count=9)

    def make_changed(self) -> Source:
        return RandomPairs(order="reverse", count=9, seed=1)


class TestSpanCorruption(RowsContract):
    kind: RowKind = SpanCorruption().for_tokenizer(ByteTokenizer())

    def test_the_config_builds_an_equal_kind(self) -> None:
        from aptlab.config import build, compose

        assert build(compose("train", ["data=span_corruption"]).resolved()["data"]["rows"]) == SpanCorruption()


@pytest.mark.parametrize(
    ("context", "density", "mean"), [(16, 0.15, 3.0), (64, 0.15, 3.0), (41, 0.5, 1.0), (9, 0.3, 8)]
)
def test_source_and_target_hold_the_text_as_in_the_reference(context, density, mean):
    kind = SpanCorruption(density=density, mean_span=mean)
    lengths = kind.find_lengths(context)
    tokens = np.arange(4 * lengths.raw + 5, dtype=np.uint16) % 250
    side = TokenSide(tokens, np.array([0, len(tokens)]), np.array([len(tokens)]))
    table = kind.for_tokenizer(ByteTokenizer()).make_validation_table(side, context=context)
    assert len(table) == 4
    got = table.rows(np.array([2, 0]))
    for at, number in enumerate((2, 0)):
        kept = divide_uniformly(lengths.raw - lengths.noise, lengths.spans, seed=0, number=2 * number)
        noise = divide_uniformly(lengths.noise, lengths.spans, seed=0, number=2 * number + 1)
        assert (kept >= 1).all()
        assert (noise >= 1).all()
        text = tokens[number * lengths.raw : (number + 1) * lengths.raw].tolist()
        source, target = corrupt(text, kept, noise, ByteTokenizer().vocab_size, EOS)
        assert got["tokens"][at].tolist() == source
        assert len(source) == context
        assert got["targets"][at].tolist() == target
        assert got["decoder_tokens"][at].tolist() == [EOS, *target[:-1]]
    assert np.array_equal(table.rows(np.array([0]))["tokens"][0], got["tokens"][1])


def test_published_lengths_and_their_share_of_noise():
    lengths = SpanCorruption().find_lengths(512)
    assert lengths == (568, 85, 28, 512, 114)  # T5: 512 tokens in, 114 out


def test_every_division_of_the_tokens_is_as_likely():
    counts: dict[tuple[int, ...], int] = {}
    for number in range(3000):
        parts = tuple(divide_uniformly(5, 3, seed=1, number=number).tolist())
        counts[parts] = counts.get(parts, 0) + 1
    assert len(counts) == 6
    assert max(abs(count / 3000 - 1 / 6) for count in counts.values()) < 0.03


@pytest.mark.parametrize(
    ("kind", "context", "message"),
    [
        ({"density": 1.0}, 16, r"density=1\.0 leaves no text to find the spans by"),
        ({"mean_span": 0.5}, 16, r"mean_span=0\.5: a span has a token at least"),
        ({"sentinels": 2}, 128, r"sentinels=2 are too few: a row of context=128 has 7 spans; use sentinels=7"),
        ({}, 2, r"context=2 holds no source with density=0\.15, mean_span=3\.0; use context=3"),
        ({"density": 0.5, "mean_span": 1}, 40, r"context=40 holds no source with .*; use context=41"),
    ],
)
def test_spans_that_cannot_be_are_refused(kind, context, message):
    with pytest.raises(ConfigError, match=message):
        SpanCorruption(**kind).find_lengths(context)


def test_sentinels_are_ids_behind_those_of_the_tokenizer(tmp_path):
    (tmp_path / "a.txt").write_text("some words of a text that is long enough\n" * 40)
    data = TextData(
        TextFiles(files=str(tmp_path / "a.txt")),
        ByteTokenizer(),
        context=16,
        batch=2,
        rows=SpanCorruption(sentinels=5),
        cache=str(tmp_path),
        split=Split(val_fraction=0.2),
    )
    assert (data.vocab_size, data.target_context, len(data.token_bytes)) == (262, 5, 262)
    data.prepare_data()
    batch = data.train_dataloader().batch_at(0)
    assert batch["targets"].shape == (2, 5)
    assert (batch["targets"][:, 0] == 257).all()
    with pytest.raises(ConfigError, match="SpanCorruption rows have an order of their own"):
        data.number_rows("train")


def make_data(source: Any = None, **given: Any) -> PairData:
    given = {"context": 14, "batch": 4, "split": Split(val_fraction=0.3)} | given
    return PairData(source or RandomPairs(count=60), ByteTokenizer(), **given)


def test_a_padded_row_is_source_and_target_with_their_ends():
    data = make_data()
    batch = data.train_dataloader().batch_at(0)
    pairs = data.sides["train"].pairs
    for row, number in enumerate(batch["ids"].tolist()):
        source = [*pairs[number].source.encode(), EOS]
        kept = batch["segments"][row] == 1
        assert batch["tokens"][row][kept].tolist() == source
        assert not batch["tokens"][row][~kept].any()
        target = [token for token in batch["targets"][row].tolist() if token != IGNORE]
        assert target == source
        assert batch["decoder_tokens"][row, : len(target)].tolist() == [EOS, *target[:-1]]


def test_a_run_goes_on_at_the_same_pairs_and_other_pairs_are_refused():
    data = make_data()
    state = {**data.state_dict(), "micro_batches": 7}
    assert json.loads(json.dumps(state)) == state
    again = make_data()
    again.load_state_dict(state)
    assert next(iter(again.train_dataloader()))["ids"].tolist() == data.train_dataloader().batch_at(7)["ids"].tolist()
    wide = make_data(batch=8)
    wide.load_state_dict(state)
    assert wide.state_dict()["micro_batches"] == 3
    with pytest.raises(CheckpointError, match="the checkpoint was trained on other pairs"):
        make_data(RandomPairs(count=61)).load_state_dict(state)


def test_no_source_is_on_both_sides_and_ranks_share_a_batch():
    data = make_data(RandomPairs(count=400, alphabet="ab", longest=4))
    sides = [{pair.source for pair in side.pairs} for side in data.sides.values()]
    assert sides[0].isdisjoint(sides[1])
    whole = data._training_rows(BatchPlan(batch=8)).batch(3)["ids"]
    parts = [data._training_rows(BatchPlan(batch=4, rank=rank, world=2)).batch(3)["ids"] for rank in range(2)]
    assert np.concatenate(parts).tolist() == whole.tolist()


def test_long_pairs_are_left_out_and_counted(caplog):
    data = make_data(context=8)
    assert all(len(pair.source) < 8 for side in data.sides.values() for pair in side.pairs)
    assert data.summary()["train_left_out"] > 0
    assert "longer than context=8 or target_context=8 tokens" in caplog.text
    with pytest.raises(DataError, match=r"all .* pairs of the train side are longer than context=1"):
        make_data(context=1).prepare_data()
    with pytest.raises(ConfigError, match="target_context=-1 must be 1 or more"):
        make_data(target_context=-1)


def test_a_tokenizer_is_trained_on_sources_and_targets_of_the_training_side(tmp_path):
    data = PairData(
        RandomPairs(count=80, alphabet="ab", shortest=6), BPE(vocab=262), context=20, batch=4, cache=str(tmp_path)
    )
    assert 257 < data.vocab_size <= 262
    assert len(data.sides["train"].table.sources[0]) < 6


@pytest.mark.parametrize(
    ("text", "given", "message"),
    [
        ('{"source": "a"}\n', {}, r"has no field 'target'.*; name the columns with source\.source=source"),
        (
            '{"source": "a", "target": "b"}\n{"source": 1, "target": "b"}\n',
            {},
            r"line 2: .* got int '1'; mend the file",
        ),
        ('{"source": "", "target": "b"}\n', {}, r"has no pair: left out 1 without any text"),
        ("x", {"suffix": ".txt"}, r"has no fields; give pairs as \.jsonl or \.parquet"),
    ],
)
def test_files_without_pairs_say_so(tmp_path, text, given, message):
    path = tmp_path / f"a{given.get('suffix', '.jsonl')}"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        list(PairFiles(files=str(path)).pairs())
    problems = list(PairFiles(files=str(path)).find_problems())
    assert problems or "has no pair" in message


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PairFiles(files=""), "files is empty; give a glob"),
        (lambda: RandomPairs(order="sort"), "order=sort"),
        (lambda: RandomPairs(shortest=5, longest=4), "longest=4 is below shortest=5"),
        (lambda: RandomPairs(alphabet="aaa"), "alphabet='aaa' leaves nothing to tell apart"),
    ],
)
def test_wrong_options_of_pairs_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
