"""Tasks of texts with a class. Legend: B rows, T tokens, N texts."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aptlab.data.rows.base import RowTable
from aptlab.data.rows.numbered import NumberedRows, RowContents
from aptlab.data.scenarios import ClassIncrementalTexts, Scenario
from aptlab.data.store.cache import find_cache_root
from aptlab.data.store.split import Split
from aptlab.data.tasks.base import TaskData
from aptlab.data.texts import LabelledText
from aptlab.data.tokenizers import Tokenizer, TokenizerRule
from aptlab.errors import ConfigError, DataError
from aptlab.limits import PositiveInt

if TYPE_CHECKING:
    from aptlab.data.rows.base import Arrays

log = logging.getLogger("aptlab")
PAD = 0  # token of padding, which no layer reads


@dataclass(frozen=True)
class LabelledTable(RowTable):
    """Texts of at most `context` tokens and their classes, by number: text n is tokens[offsets[n] : offsets[n + 1]].

    tokens int32 [sum of lengths], offsets int64 [N + 1], labels int64 [N], names [N]
    """

    tokens: np.ndarray
    offsets: np.ndarray
    labels: np.ndarray
    names: Sequence[str]
    context: int

    def __len__(self) -> int:
        return len(self.labels)

    def read_tokens(self, number: int) -> np.ndarray:
        """The tokens of a text, without padding."""
        return self.tokens[self.offsets[number] : self.offsets[number + 1]]

    def rows(self, ids: np.ndarray) -> Arrays:
        """inputs int64 [B, T] with padding at the end, segments int64 [B, T] (0 = padding), targets and ids [B]."""
        ids = np.asarray(ids, dtype=np.int64)
        inputs = np.full((len(ids), self.context), PAD, dtype=np.int64)
        sizes = self.offsets[ids + 1] - self.offsets[ids]
        for row, number in enumerate(ids.tolist()):
            inputs[row, : sizes[row]] = self.read_tokens(number)
        segments = (np.arange(self.context) < sizes[:, None]).astype(np.int64)
        return {"inputs": inputs, "segments": segments, "targets": self.labels[ids], "ids": ids}


class LabelledRows(NumberedRows):
    """Texts by number, with their tokens, lengths and words."""

    def __init__(self, table: LabelledTable, tokenizer: Tokenizer, *, side: str, key: str) -> None:
        self.table, self.tokenizer, self.side = table, tokenizer, side
        self.key = hashlib.sha256(f"{side}/{key}".encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.table)

    def read_rows(self, ids: np.ndarray) -> Arrays:
        return self.table.rows(ids)

    def read_contents(self, ids: np.ndarray) -> RowContents:
        tokens = [self.table.read_tokens(number) for number in ids.tolist()]
        lengths = np.array([len(row) for row in tokens], dtype=np.float64)
        return RowContents(ids=ids, tokens=tokens, lengths=lengths, decode=self._decode)

    def describe_row(self, number: int) -> str:
        """Side, name and class."""
        return f"{self.side} text {self.table.names[number]!r} (class {self.table.labels[number]})"

    def _decode(self, tokens: np.ndarray) -> str:
        return self.tokenizer.decode(tokens.tolist())


class LabelledTextTasks(TaskData):
    """The texts of each task of `scenario` as rows of at most `context` tokens, one task after another.

    Of a longer text the beginning is read, which is said; a shorter one is padded. Texts of one document, and equal
    documents, are on one side. A tokenizer that is trained sees the training texts of all tasks. The other parameters
    are those of `TaskData`. Raises ConfigError where the scenario has no labelled texts, DataError naming a task
    without any.
    """

    row_kind = "tokens"

    def __init__(
        self,
        scenario: Scenario,
        tokenizer: TokenizerRule | Tokenizer,
        *,
        context: PositiveInt,
        batch: PositiveInt,
        seed: int = 0,
        val_batches: PositiveInt | None = None,
        cache: str | None = None,
    ) -> None:
        super().__init__(scenario, batch=batch, seed=seed, val_batches=val_batches)
        self._context, self._rule, self._cache = context, tokenizer, cache  # a row counts as one, whatever its length

    @property
    def texts(self) -> ClassIncrementalTexts:
        """The scenario, which is one of labelled texts."""
        if not isinstance(self.scenario, ClassIncrementalTexts):
            raise ConfigError(
                f"data=labelled_texts reads texts with a class, and {type(self.scenario).__name__} has none; choose "
                "scenario=split_texts"
            )
        return self.scenario

    @property
    def classes(self) -> int:
        """Classes of all tasks together."""
        return len(self.texts.texts.names)

    @cached_property
    def _sides(self) -> dict[str, list[LabelledText]]:
        """The texts of both sides, in the order of their source."""
        scenario = self.texts
        split = Split(val_fraction=scenario.val_fraction, seed=scenario.split_seed)
        sides: dict[str, list[LabelledText]] = {"train": [], "val": []}
        for text in scenario.texts.list_texts():
            sides["val" if split.is_val(text.document) else "train"].append(text)
        return sides

    @cached_property
    def _content(self) -> str:
        """64 hex digits of all texts and the tasks that they make."""
        parts = [[text.label, text.document, text.text] for side in self._sides.values() for text in side]
        return hashlib.sha256(json.dumps([self.texts.list_classes(), parts]).encode()).hexdigest()

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of all tasks; trains or reads it when first asked."""
        if isinstance(self._rule, Tokenizer):
            return self._rule
        texts = [text.text for text in self._sides["train"]]
        return self._rule.prepare(lambda: iter(texts), key=self._content, folder=self.store_folder / "tokenizers")

    @property
    def vocab_size(self) -> int:
        """Tokens that the model needs."""
        return self.tokenizer.vocab_size

    @property
    def fingerprint(self) -> str:
        return self._key

    @cached_property
    def _key(self) -> str:
        state = json.dumps(self.tokenizer.state(), sort_keys=True, default=str)
        return hashlib.sha256(f"{self._content}/{state}/{self._context}".encode()).hexdigest()

    @property
    def store_folder(self) -> Path:
        """The folder of all caches."""
        return find_cache_root(self._cache)

    def summary(self) -> dict[str, Any]:
        counts = {"train_rows": len(self.joint_table), "val_rows": sum(map(len, self.val_tables))}
        name = "+".join(self.task_names)
        return {"name": name, "fingerprint": self.fingerprint, "vocab": self.vocab_size, **counts}

    def prepare_data(self) -> None:
        """Make the tables of both sides."""
        _ = self.joint_table, self.val_tables

    def make_tables(self, side: str) -> list[RowTable]:
        texts = self._sides[side]
        encoded, cut = self.tokenizer.encode_documents([text.text for text in texts]), 0
        tables: list[RowTable] = []
        for name, classes in zip(self.task_names, self.texts.list_classes(), strict=True):
            mine = [number for number, text in enumerate(texts) if text.label in classes]
            if not mine:
                raise DataError(f"scenario: the task {name} has no {side} text; set another val_fraction or more texts")
            cut += sum(len(encoded[number]) > self._context for number in mine)
            tables.append(self._make_table([texts[number] for number in mine], [encoded[number] for number in mine]))
        if cut:
            log.info(
                "%s of %s %s texts are longer than context=%d tokens; their beginning is read",
                *(f"{cut:,}", f"{len(texts):,}", side, self._context),
            )
        return tables

    def _make_table(self, texts: Sequence[LabelledText], encoded: Sequence[np.ndarray]) -> LabelledTable:
        rows = [np.asarray(row[: self._context], dtype=np.int32) for row in encoded]
        return LabelledTable(
            tokens=np.concatenate(rows),
            offsets=np.cumsum([0, *map(len, rows)]),
            labels=np.array([text.label for text in texts], dtype=np.int64),
            names=[text.name for text in texts],
            context=self._context,
        )

    @cached_property
    def _labels(self) -> np.ndarray:
        return np.concatenate([table.labels for table in self.joint_table.tables if isinstance(table, LabelledTable)])

    def find_labels(self, rows: np.ndarray) -> np.ndarray:
        return self._labels[rows]

    def list_task_classes(self) -> list[list[int]]:
        return self.texts.list_classes()

    def number_task_rows(self, side: str) -> list[NumberedRows]:
        tables = self.joint_table.tables if side == "train" else self.val_tables
        return [
            LabelledRows(table, self.tokenizer, side=side, key=f"{self.fingerprint}/{task}")
            for task, table in enumerate(tables)
            if isinstance(table, LabelledTable)
        ]
