"""Cut a stream of documents into rows of equal length.

Legend: B rows, T tokens (the context), N tokens of the stream, D documents.

Each document is followed by eos, documents follow each other without padding, and row i holds the tokens
[i*T, (i+1)*T] with both ends included: T inputs, and the same shifted by one as T targets. Every token of the
stream but the first is the target of exactly one row, except up to T tokens at the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from aptlab.data.rows.base import RowTable, describe_short_side
from aptlab.errors import DataError

if TYPE_CHECKING:
    from aptlab.data.rows.base import Arrays
    from aptlab.data.store.pieces import CheckedTokens


@dataclass(frozen=True)
class PackedTable(RowTable):
    """Rows of `context` tokens over the stream `tokens` [N], with document starts `offsets` [D+1].

    With `document_mask` a row also says which document each token belongs to; the first token of a document
    is still a target, predicted from the eos before it. Raises DataError when no row fits.
    """

    tokens: np.ndarray | CheckedTokens
    offsets: np.ndarray
    context: int
    document_mask: bool = False
    side: str = "train"

    def __post_init__(self) -> None:
        if len(self) < 1:
            raise DataError(describe_short_side(len(self.tokens), context=self.context, side=self.side))

    def __len__(self) -> int:
        return (len(self.tokens) - 1) // self.context

    def rows(self, ids: np.ndarray) -> Arrays:
        """The rows `ids` [B]: tokens and targets int64 [B,T], ids [B], and positions and segments [B,T]."""
        starts = np.asarray(ids, dtype=np.int64) * self.context
        block = gather_rows(self.tokens, starts, self.context + 1)
        batch = shift_targets(block)
        batch["ids"] = np.asarray(ids, dtype=np.int64)
        if self.document_mask:
            batch["positions"], batch["segments"] = locate_documents(self.offsets, starts, self.context)
        return batch


def gather_rows(tokens: np.ndarray | CheckedTokens, starts: np.ndarray, length: int) -> np.ndarray:
    """tokens[s : s+length] for every s of `starts` [B], in the type of the stream: [B, length]."""
    if starts.size and (int(starts.min()) < 0 or int(starts.max()) + length > len(tokens)):
        raise IndexError(f"rows of {length} from {starts.max()} do not fit into {len(tokens)} tokens")
    return tokens[starts[:, None] + np.arange(length)]


def shift_targets(block: np.ndarray) -> Arrays:
    """Inputs and targets out of blocks [B, T+1], each a contiguous int64 [B, T]."""
    return {"tokens": block[:, :-1].astype(np.int64, order="C"), "targets": block[:, 1:].astype(np.int64, order="C")}


def locate_documents(offsets: np.ndarray, starts: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Position in its document and number of its document for each token of rows [s, s+length).

    Positions count from 0 at the row's start or the document's start, whichever is later; documents count
    from 1 within the row. Both int64 [B, length].
    """
    first = np.searchsorted(offsets, starts, side="right")
    counts = np.searchsorted(offsets, starts + length, side="left") - first
    rows = np.repeat(np.arange(len(starts)), counts)
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    columns = offsets[np.repeat(first, counts) + within] - starts[rows]
    begins = np.zeros((len(starts), length), dtype=np.int64)
    begins[rows, columns] = 1
    column = np.arange(length)
    last_begin = np.maximum.accumulate(np.where(begins, column, 0), axis=1)
    return column - last_begin, 1 + np.cumsum(begins, axis=1)


def find_inner_segments(offsets: np.ndarray, length: int) -> np.ndarray:
    """Starts of segments of length + 1 tokens that lie in one document, as many as fit, in order."""
    counts = np.maximum(np.diff(offsets) - 1, 0) // length
    document = np.repeat(np.arange(len(counts)), counts)
    number = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.asarray(offsets)[document] + number * length
