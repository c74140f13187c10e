"""A split gives the share of the text that was asked for, whatever documents there are."""

from __future__ import annotations

import itertools
import json
import random

import numpy as np
import pytest

from aptlab.data.module import TextData
from aptlab.data.rows import Mixed, Packed
from aptlab.data.sources import TextFiles
from aptlab.data.store.plan import PIECE, TAIL, SplitPlan, Tails, open_or_make_plan, plan_split
from aptlab.data.store.split import Split
from aptlab.data.store.tails import cut_tail
from aptlab.data.tokenizers import BPE, ByteTokenizer
from aptlab.errors import CheckpointError, ConfigError, DataError


def prose(size: int, seed: int) -> str:
    """A text of lines and paragraphs, of about so many bytes."""
    chance = random.Random(seed)
    words = [f"{chance.choice('bcdfg')}{chance.choice('aeiou')}{chance.choice('lmnrst')}" for _ in range(40)]
    lines = [" ".join(chance.choices(words, k=9)) + ("\n\n" if chance.random() < 0.2 else "\n") for _ in range(200)]
    return "".join(chance.choices(lines, k=-(-size // 36)))


def held_out(text: str) -> str:
    """The text with a number that puts it on the validation side as a whole."""
    return next(found for n in itertools.count() if Split(0.05).is_val(found := f"{n}\n{text}"))


def noise(size: int, seed: int) -> str:
    return "".join(random.Random(seed).choices("abcdefghij", k=size))


CORPORA = {
    "one text of 1.1 MB": lambda: [prose(1_100_000, 0)],
    "two books": lambda: [prose(700_000, 1), prose(500_000, 2)],
    "six equal files": lambda: [prose(100_000, 10 + n) for n in range(6)],
    "a single line": lambda: [noise(3_000_000, 4)],
    "one large among small": lambda: [*(prose(3_000, 100 + n) for n in range(400)), held_out(prose(420_000, 5))],
    "one short text": lambda: [prose(4_000, 6)],
    "equal documents": lambda: [prose(30_000, 7)] * 3 + [prose(30_000, 8)] * 3,
    "characters of three bytes": lambda: ["日本語のテキスト。" * 40_000],
}


@pytest.mark.parametrize("name", CORPORA)
def test_the_share_of_the_text_is_the_one_asked_for(name):
    texts = CORPORA[name]()
    plan = plan_split(Split(0.05), texts)
    parts = [plan.divide(text) for text in texts]
    assert [train + val for train, val in parts] == texts
    held = sum(len(val.encode()) for _, val in parts) / sum(len(text.encode()) for text in texts)
    assert held == pytest.approx(0.05, abs=0.01)
    assert all(train for train, _ in parts) or plan.tails.small


def test_nothing_of_a_held_out_part_is_trained_on():
    texts = CORPORA["one large among small"]()
    plan = plan_split(Split(0.05), texts)
    parts = [plan.divide(text) for text in texts]
    train = "\0".join(part for part, _ in parts)
    for _, val in parts:
        assert not val or val[:200] not in train
    assert len({plan.divide(text) for text in CORPORA["equal documents"]()}) == 2


def test_held_out_parts_are_unbroken_and_end_at_a_border():
    texts = CORPORA["two books"]()
    plan = plan_split(Split(0.05), texts)
    for train, val in map(plan.divide, texts):
        assert len(val) > TAIL
        assert train.endswith("\n\n")
    line = CORPORA["a single line"]()[0]
    train, val = plan_split(Split(0.05), [line]).divide(line)
    assert (len(train), len(val)) == (2_850_000, 150_000)


@pytest.mark.parametrize(
    ("text", "share", "expected"),
    [
        ("a" * 90 + "\n\n" + "b" * 100, 0.5, ("a" * 90 + "\n\n", "b" * 100)),
        ("a" * 90 + "\n" + "b" * 100, 0.5, ("a" * 90 + "\n", "b" * 100)),
        ("a" * 95 + " " + "b" * 100, 0.5, ("a" * 95 + " ", "b" * 100)),
        ("日本", 0.2, ("日", "本")),
        ("日本", 0.9, ("日", "本")),
        ("ab", 0.5, ("a", "b")),
    ],
)
def test_a_text_is_cut_at_the_nearest_border_and_never_inside_a_character(text, share, expected):
    assert cut_tail(text, share) == expected


def test_many_documents_are_split_as_ever_and_adding_one_moves_no_other():
    texts = [prose(300, n) for n in range(300)]
    split = Split(0.1)
    plan = plan_split(split, texts)
    assert plan.tails is None
    assert (plan.key(), plan.name) == (split.key(), "by documents")
    assert list(plan.list_notes()) == []
    more = plan_split(split, reversed([*texts, "another"]))
    assert [plan.divide(text) for text in texts] == [more.divide(text) for text in texts]
    assert [plan.divide(text) for text in texts] == [split.divide(text) for text in texts]


def test_a_plan_depends_on_no_order_and_is_kept(tmp_path):
    texts = CORPORA["one large among small"]()
    plan = plan_split(Split(0.05), texts)
    assert plan_split(Split(0.05), reversed(texts)) == plan
    assert plan.share > 0.2
    assert plan.key().startswith(Split(0.05).key() + ":")
    options = {"folder": tmp_path, "key": "k"}
    assert open_or_make_plan(Split(0.05), texts, **options) == plan
    assert open_or_make_plan(Split(0.05), iter(()), **options) == plan
    (path,) = tmp_path.glob("*.json")
    path.write_text("{")
    assert open_or_make_plan(Split(0.05), texts, **options) == plan


def test_whole_documents_can_be_asked_for(tmp_path):
    texts = CORPORA["one large among small"]()
    plan = plan_split(Split(0.05, inside=False), texts)
    assert (plan.tails, plan.key()) == (None, Split(0.05).key())
    assert open_or_make_plan(Split(0.05), texts, folder=tmp_path, key="k").tails is not None
    assert open_or_make_plan(Split(0.05, inside=False), texts, folder=tmp_path, key="k") == plan


def test_a_checkpoint_of_whole_documents_names_the_way_out(tmp_path):
    for n in range(6):
        (tmp_path / f"{n}.txt").write_text(prose(4_000, n))
    source, options = TextFiles(str(tmp_path / "*.txt")), {"context": 16, "batch": 1, "cache": str(tmp_path / "cache")}
    now, before = (
        TextData(source, tokenizer=ByteTokenizer(), split=Split(0.05, inside=inside), **options)
        for inside in (True, False)
    )
    assert now.fingerprint != before.fingerprint
    with pytest.raises(CheckpointError, match=r"split by whole documents.* data\.split\.inside=false and load=resume"):
        now.check_state({"fingerprint": before.fingerprint})
    before.check_state({"fingerprint": before.fingerprint})


def test_small_documents_are_taken_by_hash_and_the_last_is_cut():
    texts = [prose(40_000, n) for n in range(5)]
    plan = plan_split(Split(0.3), texts)
    parts = [plan.divide(text) for text in texts]
    assert plan.tails is not None
    whole = [val for train, val in parts if val and not train]
    cut = [val for train, val in parts if val and train]
    assert (len(whole), len(cut)) == (1, 1)
    assert len(cut[0]) > PIECE


def test_a_split_inside_documents_is_told_in_one_line():
    plan = plan_split(Split(0.05), CORPORA["one large among small"]())
    assert list(plan.list_notes()) == ["validation: the last 5 % of the large document, and 5 % of the 400 small ones"]


@pytest.mark.parametrize(
    ("large", "small", "line"),
    [
        (1, 0, "the last 5 % of the text (one document)"),
        (0, 1, "the last 5 % of the text (one document)"),
        (2, 0, "the last 5 % of each of 2 documents"),
        (0, 9, "5 % of the text, of 9 documents some whole and the end of one"),
        (2, 1, "the last 5 % of each of 2 large documents, and 5 % of the small one"),
    ],
)
def test_the_line_is_short_for_any_number_of_documents(large, small, line):
    assert Tails(large=large, small=small).describe_held_part("5 %") == line


def test_blank_documents_are_on_no_side_and_change_the_key():
    texts = [prose(300, n) for n in range(300)]
    plan = plan_split(Split(0.1), [*texts, " \n", "\t"])
    assert (plan.blank, plan.divide(" \n")) == (2, ("", ""))
    assert plan.key() == f"{Split(0.1).key()}:no-blank"
    assert list(plan.list_notes()) == ["left out 2 documents of white space only"]


def test_texts_that_cannot_be_split_are_refused():
    with pytest.raises(DataError, match=r"the source has 1 bytes of text, too few to train and to validate on"):
        plan_split(Split(), ["a"])
    with pytest.raises(DataError, match=r"the source has no document; give it files with text"):
        plan_split(Split(), [])


@pytest.mark.parametrize("rows", [Packed(), Packed(document_mask=True), Mixed(original_len=64)])
def test_one_file_trains_and_validates(rows, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("APTLAB_CACHE", str(tmp_path / "cache"))
    (tmp_path / "play.txt").write_text(prose(200_000, 3))
    data = TextData(TextFiles(str(tmp_path / "play.txt")), tokenizer=BPE(vocab=300), context=256, batch=4, rows=rows)
    with caplog.at_level("INFO", logger="aptlab"):
        data.prepare_data()
    assert caplog.messages == ["validation: the last 5 % of the text (one document)"]
    facts = data.summary()
    assert facts["split"] == "inside documents"
    assert facts["val_bytes"] / (facts["val_bytes"] + facts["train_bytes"]) == pytest.approx(0.05, abs=0.005)
    train, val = (side.tokens for side in (data.store.train, data.store.val))
    tokenizer = data.tokenizer
    assert tokenizer.decode(train[:-1]) + tokenizer.decode(val[:-1]) == (tmp_path / "play.txt").read_text()
    batch = next(iter(data.val_dataloader()))
    assert np.isin(batch["targets"].numpy(), val).all()


def test_bpe_is_trained_on_the_part_that_is_trained_on(tmp_path, monkeypatch):
    seen: list[str] = []
    train = BPE.train
    monkeypatch.setattr(BPE, "train", lambda self, texts: train(self, iter(seen.extend(texts) or seen)))
    (tmp_path / "play.txt").write_text(prose(200_000, 3))
    data = TextData(
        TextFiles(str(tmp_path / "play.txt")), tokenizer=BPE(vocab=300), context=16, batch=1, cache=str(tmp_path)
    )
    data.prepare_data()
    assert "".join(seen) == data.tokenizer.decode(data.store.train.tokens[:-1])


def test_a_text_shorter_than_a_context_is_refused_with_numbers(tmp_path):
    (tmp_path / "a.txt").write_text("To be, or not to be.\n" * 30)
    source = TextFiles(str(tmp_path / "a.txt"))
    data = TextData(source, tokenizer=ByteTokenizer(), context=256, batch=1, cache=str(tmp_path))
    with pytest.raises(DataError, match=r"context=256 is longer than the val text, which has 33 tokens.*val_fraction"):
        data.val_dataloader()
    data = TextData(source, tokenizer=ByteTokenizer(), context=1024, batch=1, cache=str(tmp_path))
    with pytest.raises(DataError, match=r"context=1024 is longer than the train text, which has \d+ tokens; largest"):
        data.prepare_data()
    assert list(source.find_training_problems(600)) == []
    (problem,) = source.find_training_problems(1024)
    assert problem.startswith("files=")
    assert problem.endswith(
        "has 630 bytes of text, too few for one row of context=1024 tokens; give more text, or a smaller context"
    )


def test_a_split_by_seed_is_another_one():
    texts = [prose(3_000, n) for n in range(12)]
    sides = {seed: [bool(plan_split(Split(0.2, seed), texts).divide(text)[1]) for text in texts] for seed in range(3)}
    assert len({tuple(side) for side in sides.values()}) > 1
    assert all(any(side) for side in sides.values())
    assert isinstance(plan_split(Split(0.2), itertools.islice(texts, 4)), SplitPlan)
    with pytest.raises(ConfigError, match="leaves one side of the split empty"):
        Split(1)


def test_the_validation_text_has_a_name_that_its_tokens_do_not_change(tmp_path, monkeypatch):
    monkeypatch.setenv("APTLAB_CACHE", str(tmp_path / "cache"))
    (tmp_path / "play.txt").write_text(prose(20_000, 3))
    (tmp_path / "other.txt").write_text(prose(20_000, 4))

    def name(file: str, rule=None, **options) -> str:
        data = TextData(
            TextFiles(str(tmp_path / file)), tokenizer=rule or ByteTokenizer(), context=16, batch=1, **options
        )
        assert data.summary()["val_text"] == data.val_text
        return data.val_text

    text = name("play.txt")
    assert name("play.txt", BPE(vocab=300)) == text
    others = {name("other.txt"), name("play.txt", split=Split(val_fraction=0.1))}
    assert len(others | {text}) == 3
    for path in (tmp_path / "cache" / "tokens").glob("*/meta.json"):  # as an earlier version wrote them
        meta = json.loads(path.read_text())
        del meta["sides"]["val"]["text"], meta["check"]
        path.write_text(json.dumps(meta))
    assert name("play.txt") == text
    (kept,) = (tmp_path / "cache" / "splits").glob("*.text.json")
    kept.write_text("{")
    assert name("play.txt") == text
