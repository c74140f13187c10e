"""Rows by number, as a curriculum sees them: what they hold, how long they are, and what to call them in a message.

Any data can be trained on in another order that numbers its rows 0 .. n-1 and can say what they hold: packed rows of
tokens, texts with a class, images.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

if TYPE_CHECKING:
    from aptlab.data.rows.base import Arrays
    from aptlab.data.rows.order import RowOrder

CHUNK = 1024  # rows that are looked at together


@dataclass(frozen=True, kw_only=True)
class RowContents:
    """What some rows hold. Legend: B rows.

    ids      row numbers, int64 [B]
    tokens   the ids that each row is made of, B arrays of whole numbers
    lengths  tokens of the sample that a row is, or of the documents that it is cut from, float64 [B]
    decode   from tokens to text; None where rows are no text
    """

    ids: np.ndarray
    tokens: Sequence[np.ndarray]
    lengths: np.ndarray
    decode: Callable[[np.ndarray], str] | None = None

    def list_texts(self) -> list[str] | None:
        """The text of each row; None where rows are no text."""
        return None if self.decode is None else [self.decode(row) for row in self.tokens]

    def take(self, places: Sequence[int]) -> RowContents:
        """Some of the rows."""
        tokens = [self.tokens[place] for place in places]
        return RowContents(
            ids=self.ids[list(places)], tokens=tokens, lengths=self.lengths[list(places)], decode=self.decode
        )


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
