"""Rows of tokens by number. Legend: B rows, T tokens per row, D documents."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from aptlab.data.rows.numbered import NumberedRows, RowContents

if TYPE_CHECKING:
    from aptlab.data.rows.base import Arrays, RowTable
    from aptlab.data.sources import Source
    from aptlab.data.store.cache import TokenSide
    from aptlab.data.store.split import Division
    from aptlab.data.tokenizers import Tokenizer


class TextRows(NumberedRows):
    """The rows of `table`, each of which is cut from `side` at its number times the context.

    facts          what decides the content of the rows, beside their side's name
    name_document  the name of document d of this side; it may take a look at the text
    """

    def __init__(
        self,
        table: RowTable,
        side: TokenSide,
        *,
        name: str,
        tokenizer: Tokenizer,
        facts: dict[str, Any],
        name_document: Callable[[int], str],
    ) -> None:
        self.table, self.side, self.name, self.tokenizer = table, side, name, tokenizer
        self.name_document = name_document
        words = json.dumps({**facts, "side": name, "context": table.context}, sort_keys=True, default=str)
        self.key = hashlib.sha256(words.encode()).hexdigest()
        sizes = np.diff(side.offsets).astype(np.int64)
        self._sizes = sizes
        self._weighted = np.concatenate([[0], np.cumsum(sizes.astype(np.float64) ** 2)])

    def __len__(self) -> int:
        return len(self.table)

    def read_rows(self, ids: np.ndarray) -> Arrays:
        return self.table.rows(ids)

    def read_contents(self, ids: np.ndarray) -> RowContents:
        """Tokens of each row [T], and the mean length of the documents that its tokens are of, eos counted."""
        tokens_BT = self.table.rows(ids)["tokens"]
        starts = np.asarray(ids, dtype=np.int64) * self.table.context
        lengths = (self._weigh(starts + self.table.context) - self._weigh(starts)) / self.table.context
        return RowContents(ids=ids, tokens=list(tokens_BT), lengths=lengths, decode=self._decode)

    def describe_row(self, number: int) -> str:
        """Number, side, and the document of its first token."""
        document = int(np.searchsorted(self.side.offsets, number * self.table.context, side="right")) - 1
        return f"row {number} of the {self.name} text (document {self.name_document(document)!r})"

    def _weigh(self, places: np.ndarray) -> np.ndarray:
        """Sum over the tokens before each place of the length of their document, float64."""
        document = np.searchsorted(self.side.offsets, places, side="right") - 1
        document = np.minimum(document, len(self._sizes) - 1)  # the end of the stream belongs to the last one
        inside = places - np.asarray(self.side.offsets)[document]
        return self._weighted[document] + inside * self._sizes[document].astype(np.float64)

    def _decode(self, tokens: np.ndarray) -> str:
        return self.tokenizer.decode(tokens.tolist())


def name_document(source: Source, split: Division, side: str, number: int) -> str:
    """The name of a document by its number on its side; reads the documents up to it."""
    at = 0 if side == "train" else 1
    names = (name for name, text in source.documents() if split.divide(text)[at])
    return next(itertools.islice(names, number, None), f"number {number}")
