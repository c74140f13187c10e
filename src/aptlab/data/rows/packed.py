"""Rows of documents behind each other, without padding. No numpy is loaded until rows are made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aptlab.data.rows.base import BatchPlan, RowKind, Rows, RowTable, describe_few_rows, describe_short_side

if TYPE_CHECKING:
    from aptlab.data.store.cache import TokenSide


@dataclass(frozen=True, kw_only=True)
class Packed(RowKind):
    """Every `context` tokens of the stream are a row; an epoch shows each once, in a new order.

    document_mask  tokens do not see other documents of their row, and positions begin anew with each
    """

    document_mask: bool = False

    def make_rows(self, side: TokenSide, *, context: int, plan: BatchPlan) -> Rows:
        from aptlab.data.rows.epochs import EpochRows

        return EpochRows(self.make_training_table(side, context=context), plan)

    def make_training_table(self, side: TokenSide, *, context: int) -> RowTable:
        from aptlab.data.rows.packed_table import PackedTable

        return PackedTable(side.tokens, side.offsets, context, self.document_mask)

    def make_validation_table(self, side: TokenSide, *, context: int) -> RowTable:
        from aptlab.data.rows.packed_table import PackedTable

        return PackedTable(side.tokens, side.offsets, context, self.document_mask, "val")

    def find_size_problems(self, tokens: int, *, context: int, plan: BatchPlan) -> Iterator[str]:
        rows = (tokens - 1) // context
        if rows < 1:
            yield describe_short_side(tokens, context=context, side="train")
        elif rows < plan.global_batch:
            yield describe_few_rows(rows, context=context, plan=plan)

    def settings(self) -> Mapping[str, Any]:
        return {}
