"""Laws of sources and of rows. Legend: B rows per micro-batch and device, T tokens per row, W ranks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from aptlab.data.rows.base import BatchPlan, RowKind, Rows
from aptlab.data.rows.epochs import ValidationRows
from aptlab.data.sources import Source
from aptlab.data.store.cache import TokenSide
from aptlab.data.validate import find_batch_problem, find_document_problem, find_fingerprint_problem
from aptlab.objectives import IGNORE
from aptlab.testing.contract import Contract

if TYPE_CHECKING:
    from aptlab.data.rows.base import Arrays

BATCHES = 7  # micro-batches that the laws look at, from the first on


class SourceContract(Contract):
    """Laws of one source: override `make_source`, and `make_changed`, the same source with one document changed.

    Where the fingerprint covers settings and not the content, as with a remote data set, change a setting.
    """

    def make_source(self) -> Source:
        """The source; called anew for every law, so that nothing is kept between them."""
        raise NotImplementedError("a SourceContract overrides make_source()")

    def make_changed(self) -> Source:
        """The same source after a document was changed, added or taken away."""
        raise NotImplementedError("a SourceContract overrides make_changed()")

    def test_documents_are_pairs_of_a_name_and_a_text(self) -> None:
        documents = list(self.make_source().documents())
        assert documents, "documents() gave none"
        for document in documents:
            problem = find_document_problem(document)
            assert problem is None, f"documents() gave {problem}"
            document[1].encode()

    def test_documents_come_twice_in_the_same_order(self) -> None:
        source = self.make_source()
        first = list(source.documents())
        assert first == list(source.documents()), "documents() gave other documents when it was read again"
        assert first == list(self.make_source().documents()), "an equal source gave other documents"

    def test_what_is_left_out_is_told_and_changes_nothing(self) -> None:
        notes: list[str] = []
        documents = list(self.make_source().documents(note=notes.append))
        assert documents == list(self.make_source().documents()), "documents(note) and documents() differ"
        assert all(isinstance(note, str) and note for note in notes), f"note got {notes}, must get lines"

    def test_the_fingerprint_is_the_same_twice(self) -> None:
        source = self.make_source()
        fingerprint = source.fingerprint()
        problem = find_fingerprint_problem(fingerprint)
        assert problem is None, f"fingerprint() {problem}"
        list(source.documents())
        again = (source.fingerprint(), self.make_source().fingerprint())
        assert again == (fingerprint, fingerprint), "fingerprint() changes though no document does"

    def test_the_fingerprint_changes_when_a_document_does(self) -> None:
        before = self.make_source().fingerprint()
        assert self.make_changed().fingerprint() != before, "a document changed and fingerprint() did not"

    def test_it_has_a_name_for_tables(self) -> None:
        name = self.make_source().name
        assert isinstance(name, str), f"name={name!r} must be a string"
        assert name, "name is empty"

    def test_config_builds_an_equal_source(self) -> None:
        if self.config is None:
            return
        from aptlab.config import build

        made, source = build(self.config), self.make_source()
        assert made.fingerprint() == source.fingerprint(), f"the config builds {made}, not {source}"


class RowsContract(Contract):
    """Laws of one kind of rows: override `kind`, and `context`, `batch` and `sizes` (tokens of documents) if needed.

    `covers = True` on the kind promises that an epoch shows every row once, but a remainder: measured here.
    """

    kind: RowKind
    context: int = 16
    batch: int = 2
    sizes: tuple[int, ...] = (40, 7, 90, 16, 33, 5, 120, 64, 9, 51, 28, 77)

    def test_a_batch_is_a_function_of_its_number(self) -> None:
        rows, again = self._rows(), self._rows()
        ahead = [rows.batch(number) for number in range(BATCHES)]
        for number in reversed(range(BATCHES)):
            assert_same_arrays(again.batch(number), ahead[number], f"batch({number}) after other numbers")
        far = 3 * rows.batches_per_epoch + 1
        assert_same_arrays(rows.batch(far), again.batch(far), f"batch({far})")

    def test_arrays_are_int64_of_the_sizes_that_they_must_have(self) -> None:
        rows = self._rows()
        for number in range(BATCHES):
            problem = find_batch_problem(rows.batch(number), rows.plan, self.kind.count_row_tokens(self.context))
            assert problem is None, f"batch({number}) {problem}"

    def test_ranks_share_out_one_global_batch(self) -> None:
        for world in (2, 3):
            whole = self._rows(batch=self.batch * world)
            ranks = [self._rows(rank=rank, world=world) for rank in range(world)]
            for number in range(BATCHES):
                parts = [rows.batch(number) for rows in ranks]
                joined = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
                law = f"{world} ranks together == one rank with {world} times the rows, batch({number})"
                assert_same_arrays(joined, whole.batch(number), law)

    def test_the_seed_decides_the_order(self) -> None:
        first, other = ([self._rows(seed=seed).batch(n)["ids"] for n in range(BATCHES)] for seed in (0, 1))
        assert not np.array_equal(first, other), "two seeds gave the same rows in the same order"

    def test_an_epoch_is_counted(self) -> None:
        rows = self._rows()
        expected = max(1, len(rows) // rows.plan.global_batch)
        assert rows.batches_per_epoch == expected, f"batches_per_epoch={rows.batches_per_epoch}, must be {expected}"

    def test_covers_flag_is_what_is_measured(self) -> None:
        rows = self._rows()
        count = rows.batches_per_epoch
        for epoch in range(3):
            batches = [rows.batch(epoch * count + i) for i in range(count)]
            ids, targets = (np.concatenate([batch[key].reshape(-1) for batch in batches]) for key in ("ids", "targets"))
            twice = [len(np.unique(shown)) < len(shown) for shown in (ids, targets[targets != IGNORE])]
            if self.kind.covers:
                assert not twice[0], f"covers=True, and epoch {epoch} shows a row twice"
            elif any(twice):
                return
        assert self.kind.covers, "covers=False, and no epoch shows a row or a token twice"

    def test_the_state_is_plain_and_says_what_a_number_means(self) -> None:
        state = self._rows(seed=5).state()
        assert json.loads(json.dumps(state)) == state, f"state() is not plain: {state}"
        needed = {"seed": 5, "context": self.context, "global_batch": self.batch, **self.kind.settings()}
        missing = {key: value for key, value in needed.items() if state.get(key) != value}
        assert not missing, f"state() is {state}, must have {missing}"

    def test_a_run_goes_on_at_the_same_number(self) -> None:
        rows, far = self._rows(), 2 * self._rows().batches_per_epoch + 1
        same = rows.convert_number(far, global_batch=self.batch)
        assert same == far, f"convert_number({far}) with the same global batch gave {same}"
        wide = self._rows(batch=2 * self.batch)
        assert wide.convert_number(4, global_batch=self.batch) == 2, "4 batches of half the rows are not 2 batches"

    def test_validation_rows_are_the_same_for_every_number_of_ranks(self) -> None:
        alone = self._validation_ids(world=1)
        for world in (2, 3):
            together = self._validation_ids(world=world)
            assert together == alone, f"{world} ranks validate on other rows than one"

    def test_config_builds_an_equal_kind(self) -> None:
        if self.config is None:
            return
        from aptlab.config import build

        made = build(self.config)
        assert made == self.kind, f"the config builds {made}, not {self.kind}"

    def _side(self) -> TokenSide:
        """A stream whose tokens are all different, so that rows cannot be mistaken for each other."""
        offsets = np.concatenate([[0], np.cumsum(self.sizes)])
        return TokenSide(np.arange(offsets[-1], dtype=np.uint16), offsets, np.diff(offsets))

    def _rows(self, *, batch: int | None = None, seed: int = 0, rank: int = 0, world: int = 1) -> Rows:
        plan = BatchPlan(batch=batch or self.batch, seed=seed, rank=rank, world=world)
        return self.kind.make_rows(self._side(), context=self.context, plan=plan)

    def _validation_ids(self, *, world: int) -> list[int]:
        table = self.kind.make_validation_table(self._side(), context=self.context)
        parts = [ValidationRows(table, BatchPlan(batch=self.batch, rank=rank, world=world)) for rank in range(world)]
        assert len({len(part) for part in parts}) == 1, "ranks have different numbers of validation batches"
        found = np.concatenate([part.batch(number)["ids"] for part in parts for number in range(len(part))])
        return sorted(found[found >= 0].tolist())


def assert_same_arrays(got: Arrays, expected: Arrays, law: str) -> None:
    """Assert that two batches have the same names and equal arrays."""
    assert got.keys() == expected.keys(), f"{law}: has {sorted(got)}, not {sorted(expected)}"
    unequal: list[Any] = [key for key in got if not np.array_equal(got[key], expected[key])]
    assert not unequal, f"{law}: {', '.join(unequal)} differ"
