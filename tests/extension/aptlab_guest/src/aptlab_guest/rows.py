"""Rows that overlap by half."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from aptlab.data.rows import BatchPlan, RowKind, Rows, RowTable

if TYPE_CHECKING:
    import numpy as np

    from aptlab.data.rows.base import Arrays
    from aptlab.data.store.cache import TokenSide


@dataclass(frozen=True, kw_only=True)
class Overlapping(RowKind):
    """A row begins every half `context` of the stream, so that every token stands in two rows."""

    covers: ClassVar[bool] = True

    def make_rows(self, side: TokenSide, *, context: int, plan: BatchPlan) -> Rows:
        """Shuffled epochs of the overlapping rows."""
        from aptlab.data.rows.epochs import EpochRows

        return EpochRows(OverlappingTable(side.tokens, context), plan, settings=self.settings())

    def make_validation_table(self, side: TokenSide, *, context: int) -> RowTable:
        """The same rows of the other side."""
        return OverlappingTable(side.tokens, context)

    def settings(self) -> Mapping[str, Any]:
        """What tells these rows from others in a checkpoint."""
        return {"rows": "overlapping"}


class OverlappingTable(RowTable):
    """Row i is tokens [i · T/2, i · T/2 + T)."""

    def __init__(self, tokens: np.ndarray, context: int) -> None:
        self.tokens, self.context = tokens, context

    def __len__(self) -> int:
        """Rows that fit whole."""
        return max(0, (len(self.tokens) - 1 - self.context) // (self.context // 2) + 1)

    def rows(self, ids: np.ndarray) -> Arrays:
        """Tokens and targets [B, T], ids [B]."""
        import numpy as np

        starts = np.asarray(ids, dtype=np.int64)[:, None] * (self.context // 2)
        block = self.tokens[starts + np.arange(self.context + 1)].astype(np.int64)
        return {"tokens": block[:, :-1].copy(), "targets": block[:, 1:].copy(), "ids": np.asarray(ids, dtype=np.int64)}
