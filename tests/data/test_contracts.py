"""Every source and every kind of rows keeps its contract; one that breaks it is caught, here and before a run."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from aptlab.data.module import TextData
from aptlab.data.rows import BatchPlan, Mixed, Packed, RowKind, Rows, RowTable
from aptlab.data.rows.epochs import EpochRows
from aptlab.data.sources import Document, Note, Source, Stdlib, TextFiles, fingerprint_parts
from aptlab.data.tokenizers import ByteTokenizer
from aptlab.errors import DataError
from aptlab.testing import RowsContract, SourceContract


class TestStdlib(SourceContract):
    config: ClassVar[dict[str, Any] | None] = {"_target_": "aptlab.data.sources.Stdlib", "parts": ["prose"]}

    def make_source(self) -> Source:
        return Stdlib(parts=["prose"])

    def make_changed(self) -> Source:
        return Stdlib(parts=["code"])


class TestTextFiles(SourceContract):
    @pytest.fixture(autouse=True)
    def _files(self, tmp_path: Path) -> None:
        self.folder = tmp_path
        lines = [{"text": "one"}, {"text": ""}, {"text": "three"}]
        (tmp_path / "a.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        (tmp_path / "b.txt").write_text("a whole file")

    def make_source(self) -> Source:
        return TextFiles(files=[str(self.folder / "*.jsonl"), str(self.folder / "*.txt")], on_bad="skip")

    def make_changed(self) -> Source:
        (self.folder / "b.txt").write_text("a whole file!")
        return self.make_source()


class TestPacked(RowsContract):
    kind: RowKind = Packed()
    config: ClassVar[dict[str, Any] | None] = {"_target_": "aptlab.data.rows.Packed", "document_mask": False}


class TestPackedWithMasks(RowsContract):
    kind: RowKind = Packed(document_mask=True)


class TestMixed(RowsContract):
    kind: RowKind = Mixed(original_len=8)


@dataclass(frozen=True)
class Careless(Source):
    """Breaks one law at a time."""

    name: ClassVar[str] = "careless"
    reads: Iterator[int] = field(default_factory=itertools.count)
    text: str = ""
    shuffled: bool = False
    print: str = "0" * 64

    def documents(self, note: Note | None = None) -> Iterator[Document]:
        number = next(self.reads) if self.shuffled else 0
        yield "a", f"text {number}"
        yield "b", self.text

    def fingerprint(self) -> str:
        return self.print


BROKEN_SOURCES = [
    (Careless(), "test_documents_are_pairs_of_a_name_and_a_text", r"documents\(\) gave the document 'b' without text"),
    (Careless(text="b", shuffled=True), "test_documents_come_twice_in_the_same_order", r"documents\(\) gave other doc"),
    (Careless(text="b", print="abc"), "test_the_fingerprint_is_the_same_twice", r"fingerprint\(\) gave 'abc'; it must"),
    (Careless(text="b"), "test_the_fingerprint_changes_when_a_document_does", r"fingerprint\(\) did not"),
]


def contract_of(source: Source) -> SourceContract:
    contract: Any = SourceContract()
    contract.make_source = lambda: source
    contract.make_changed = lambda: replace(source, text="changed")
    return contract


@pytest.mark.parametrize(("source", "law", "message"), BROKEN_SOURCES, ids=[law for _, law, _ in BROKEN_SOURCES])
def test_a_broken_source_is_caught(source, law, message):
    with pytest.raises(AssertionError, match=message):
        getattr(contract_of(source), law)()


@pytest.mark.parametrize(("source", "message"), [(source, message) for source, _, message in BROKEN_SOURCES[:3]])
def test_a_broken_source_is_told_before_a_run_has_a_folder(source, message):
    with pytest.raises(DataError, match=rf"Careless\.{message}"):
        TextData(source, tokenizer=ByteTokenizer(), context=4, batch=1).prepare_data()


class Remembering(Rows):
    """Rows that depend on what was asked before, or have an array of another type, or no seed in their state."""

    def __init__(self, rows: Rows, fault: str) -> None:
        self.inner, self.plan, self.fault, self.asked = rows, rows.plan, fault, 0

    def __len__(self) -> int:
        return len(self.inner)

    @property
    def batches_per_epoch(self) -> int:
        return self.inner.batches_per_epoch

    def batch(self, number: int) -> dict[str, np.ndarray]:
        self.asked += 1
        arrays = self.inner.batch(number + self.asked if self.fault == "memory" else number)
        if self.fault == "type":
            arrays["tokens"] = arrays["tokens"].astype(np.int32)
        if self.fault == "shape":
            arrays["targets"] = arrays["targets"][:, :-1]
        return {key: array for key, array in arrays.items() if self.fault != "names" or key != "ids"}

    def state(self) -> dict[str, Any]:
        state = self.inner.state()
        return {key: value for key, value in state.items() if self.fault != "state" or key != "seed"}

    def convert_number(self, number: int, *, global_batch: int) -> int:
        return self.inner.convert_number(number, global_batch=global_batch)


@dataclass(frozen=True)
class Faulty(RowKind):
    """Packed rows with a fault."""

    fault: str = ""

    def make_rows(self, side: Any, *, context: int, plan: BatchPlan) -> Rows:
        return Remembering(Packed().make_rows(side, context=context, plan=plan), self.fault)

    def make_validation_table(self, side: Any, *, context: int) -> RowTable:
        return Packed().make_validation_table(side, context=context)

    def settings(self) -> dict[str, Any]:
        return {}


FAULTS = [
    ("memory", "test_a_batch_is_a_function_of_its_number", r"batch\(0\) was another batch after batch\(1\)"),
    ("type", "test_arrays_are_int64_of_the_sizes_that_they_must_have", r"batch\(0\) has tokens of int32"),
    (
        "shape",
        "test_arrays_are_int64_of_the_sizes_that_they_must_have",
        r"batch\(0\) has targets of \[2, 15\]; they are",
    ),
    ("names", "test_arrays_are_int64_of_the_sizes_that_they_must_have", r"batch\(0\) has no ids; a batch holds"),
    ("state", "test_the_state_is_plain_and_says_what_a_number_means", r"state\(\) says nothing of seed; a resumed run"),
]


@pytest.mark.parametrize(("fault", "law", "message"), FAULTS, ids=[fault for fault, _, _ in FAULTS])
def test_broken_rows_are_caught_and_told_before_a_run_has_a_folder(fault, law, message, texts):
    contract = RowsContract()
    contract.kind = Faulty(fault)
    with pytest.raises(AssertionError):
        getattr(contract, law)()
    data = TextData(texts, tokenizer=ByteTokenizer(), context=16, batch=2, rows=Faulty(fault))
    with pytest.raises(DataError, match=rf"Remembering\.{message}"):
        data.prepare_data()


def test_a_promise_to_cover_is_measured():
    contract, kind = RowsContract(), Mixed(original_len=8)
    object.__setattr__(kind, "covers", True)
    contract.kind = kind
    with pytest.raises(AssertionError, match=r"covers=True, and epoch \d shows a row twice"):
        contract.test_covers_flag_is_what_is_measured()


def test_a_third_kind_of_rows_needs_a_rule_and_a_table(texts):
    """Every second row: what is written anew is the table; order, ranks, resume and validation are there."""

    @dataclass(frozen=True)
    class HalfTable(RowTable):
        inner: RowTable
        context: int

        def __len__(self) -> int:
            return len(self.inner) // 2

        def rows(self, ids: np.ndarray) -> dict[str, np.ndarray]:
            return {**self.inner.rows(2 * ids), "ids": ids}

    @dataclass(frozen=True)
    class Half(RowKind):
        def make_rows(self, side: Any, *, context: int, plan: BatchPlan) -> Rows:
            return EpochRows(self.make_validation_table(side, context=context), plan)

        def make_validation_table(self, side: Any, *, context: int) -> RowTable:
            return HalfTable(Packed().make_validation_table(side, context=context), context)

        def settings(self) -> dict[str, Any]:
            return {}

    contract = RowsContract()
    contract.kind = Half()
    for law in (name for name in dir(RowsContract) if name.startswith("test_")):
        getattr(contract, law)()
    data = TextData(texts, tokenizer=ByteTokenizer(), context=16, batch=4, rows=Half())
    data.prepare_data()
    whole = len(TextData(texts, tokenizer=ByteTokenizer(), context=16, batch=4).train_dataloader().rows)
    assert len(data.train_dataloader().rows) == whole // 2


def test_the_fingerprint_of_parts_depends_on_names_texts_and_order():
    parts = [("a", b"x"), ("b", b"y")]
    others = [parts[::-1], [("a", b"y"), ("b", b"x")], [("a", b"x")]]
    assert len({fingerprint_parts(found) for found in [parts, *others]}) == 4
