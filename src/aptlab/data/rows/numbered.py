"""Rows by number, as a curriculum sees them: what they hold, how long they are, and what to call them in a message.

Any data can be trained on in another order that numbers its rows 0 .. n-1 and can say what they hold: packed rows of
tokens, texts with a class, images.
"""

from __future__ import annotations

import dataclasses
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

if TYPE_CHECKING:
    from aptlab.data.rows.base import Arrays, RowTable
    from aptlab.data.rows.order import RowOrder

CHUNK = 1024  # rows that are looked at together


@dataclass(frozen=True, kw_only=True)
class RowContents:
    """What some rows hold. Legend: B rows.

    ids      row numbers, int64 [B]
    tokens   the ids that each row is made of, B arrays of whole numbers
    lengths  tokens of the sample that a row is, or of the documents that it is cut from, float64 [B]; None where rows
             are not made of tokens
    decode   from tokens to text; None where rows are no text
    """

    ids: np.ndarray
    tokens: Sequence[np.ndarray]
    lengths: np.ndarray | None = None
    decode: Callable[[np.ndarray], str] | None = None

    def list_texts(self) -> list[str] | None:
        """The text of each row; None where rows are no text."""
        return None if self.decode is None else [self.decode(row) for row in self.tokens]

    def take(self, places: Sequence[int]) -> RowContents:
        """Some of the rows."""
        tokens = [self.tokens[place] for place in places]
        lengths = None if self.lengths is None else self.lengths[list(places)]
        return RowContents(ids=self.ids[list(places)], tokens=tokens, lengths=lengths, decode=self.decode)


class NumberedRows(ABC):
    """Rows 0 .. n-1 of one side of the data, in no order.

    key  names the content of all rows: equal for equal rows, on every machine
    """

    key: str

    @abstractmethod
    def __len__(self) -> int:
        """n"""

    @abstractmethod
    def read_rows(self, ids: np.ndarray) -> Arrays:
        """The rows `ids` [B] as a micro-batch has them."""

    @abstractmethod
    def read_contents(self, ids: np.ndarray) -> RowContents:
        """What the rows `ids` [B] hold."""

    @abstractmethod
    def describe_row(self, number: int) -> str:
        """A row in words, with the document or sample that it is of: for messages."""

    def walk_contents(self, chunk: int = CHUNK) -> Iterator[RowContents]:
        """The contents of all rows, `chunk` at a time."""
        for first in range(0, len(self), chunk):
            yield self.read_contents(np.arange(first, min(first + chunk, len(self)), dtype=np.int64))


class JoinedRows(NumberedRows):
    """The rows of several tables behind each other, under one numbering: row i of part k has the number offsets[k] + i.

    table  gives rows by these numbers as a micro-batch has them
    """

    def __init__(self, parts: Sequence[NumberedRows], *, names: Sequence[str], table: RowTable) -> None:
        self.parts, self.names, self.table = tuple(parts), tuple(names), table
        self.offsets = np.cumsum([0, *map(len, parts)])
        self.key = hashlib.sha256("\n".join(part.key for part in parts).encode()).hexdigest()

    def __len__(self) -> int:
        return int(self.offsets[-1])

    def read_rows(self, ids: np.ndarray) -> Arrays:
        return self.table.rows(ids)

    def read_contents(self, ids: np.ndarray) -> RowContents:
        """The contents of the rows in the order asked for; all parts decode alike and have lengths, or none does."""
        owners = np.searchsorted(self.offsets, ids, side="right") - 1
        tokens: list[np.ndarray] = [np.zeros(0)] * len(ids)
        lengths: np.ndarray | None = np.zeros(len(ids))
        decode = None
        for part in np.unique(owners).tolist():
            mine = np.flatnonzero(owners == part)
            found = self.parts[part].read_contents(ids[mine] - self.offsets[part])
            decode = found.decode
            if found.lengths is None or lengths is None:
                lengths = None
            else:
                lengths[mine] = found.lengths
            for place, row in zip(mine.tolist(), found.tokens, strict=True):
                tokens[place] = row
        return RowContents(ids=ids, tokens=tokens, lengths=lengths, decode=decode)

    def describe_row(self, number: int) -> str:
        """The row as its part calls it, and the name of the part."""
        part = int(np.searchsorted(self.offsets, number, side="right")) - 1
        return f"{self.parts[part].describe_row(number - int(self.offsets[part]))} of {self.names[part]}"


class RowRange(NumberedRows):
    """`count` rows of others from row `first` on, numbered from 0."""

    def __init__(self, rows: NumberedRows, first: int, count: int) -> None:
        self.rows, self.first, self.count = rows, first, count
        self.key = hashlib.sha256(f"{rows.key}/{first}/{count}".encode()).hexdigest()

    def __len__(self) -> int:
        return self.count

    def read_rows(self, ids: np.ndarray) -> Arrays:
        return {**self.rows.read_rows(ids + self.first), "ids": ids}

    def read_contents(self, ids: np.ndarray) -> RowContents:
        return dataclasses.replace(self.rows.read_contents(ids + self.first), ids=ids)

    def describe_row(self, number: int) -> str:
        return self.rows.describe_row(number + self.first)


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of a run that trains on rows of its own, as a task of a scenario does.

    begin, end   optimizer steps
    train, val   first number and count of its rows, which stand behind those of the section before
    """

    name: str
    begin: int
    end: int
    train: tuple[int, int]
    val: tuple[int, int]


@runtime_checkable
class SectionedData(Protocol):
    """A data module whose rows change at known steps: rows are put in order within each section."""

    def list_sections(self) -> list[Section]: ...


@runtime_checkable
class OrderedData(Protocol):
    """A data module whose training rows can be put into another order.

    number_rows(side)     the rows of "train" or "val"; ConfigError where they have no numbers
    set_order(order)      train in this order from the first micro-batch of the next loader on; None: as it was
    count_given_rows()    rows of all ranks together that were trained on, over all resumes: the next one's position
    count_global_batch()  rows of one micro-batch of all ranks together
    store_folder          where what is computed of the rows may be kept
    """

    def number_rows(self, side: str) -> NumberedRows: ...
    def set_order(self, order: RowOrder | None) -> None: ...
    def count_given_rows(self) -> int: ...
    def count_global_batch(self) -> int: ...
    @property
    def store_folder(self) -> Any: ...
