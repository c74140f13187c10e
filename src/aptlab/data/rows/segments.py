"""Rows that read documents in order, as streams: for networks that remember. No numpy is loaded until rows are made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from aptlab.data.rows.base import BatchPlan, RowKind, Rows, RowTable, SegmentPlan, describe_few_rows
from aptlab.errors import DataError
from aptlab.limits import PositiveInt, validate_limits

if TYPE_CHECKING:
    from aptlab.data.store.cache import TokenSide


@dataclass(frozen=True, kw_only=True)
class Segments(RowKind):
    """Each row is a stream of whole documents, and the next micro-batch goes on where this one stopped.

    A row of a micro-batch is `segments` windows of `context` tokens. The network reads them one after the other, what
    it keeps goes from window to window with its gradient, and from micro-batch to micro-batch without: truncated
    backpropagation through time (Williams & Peng 1990) over `segments` windows. So segments=1 is the training of
    Transformer-XL (Dai et al. 2019, arXiv:1901.02860), more windows that of Infini-attention (Munkhdalai et al. 2024,
    arXiv:2404.07143), and segments=1 with trainer.accumulate_grad_batches=8 takes a step of eight windows whose memory
    has no gradient.

    Positions count within the document, over all its windows; a token does not see other documents.

    segments      windows of a row, through which the gradient goes
    carry         without it, what is kept ends with the row, so that documents are seen in pieces of segments windows
    val_segments  windows of a validation row; each row begins with nothing kept
    """

    covers: ClassVar[bool] = False  # rows begin their documents anew at times of their own

    segments: PositiveInt = 8
    carry: bool = True
    val_segments: PositiveInt = 8

    def __post_init__(self) -> None:
        validate_limits(self)

    def count_row_tokens(self, context: int) -> int:
        return self.segments * context

    def plan_segments(self, context: int) -> SegmentPlan:
        return SegmentPlan(window=context, carry=self.carry)

    def make_rows(self, side: TokenSide, *, context: int, plan: BatchPlan) -> Rows:
        from aptlab.data.rows.streams import StreamRows

        return StreamRows(side, plan, context=context, segments=self.segments, settings=self.settings())

    def make_validation_table(self, side: TokenSide, *, context: int) -> RowTable:
        from aptlab.data.rows.packed_table import PackedTable

        for problem in self.find_validation_problems(len(side.tokens), context=context):
            raise DataError(problem)
        return PackedTable(side.tokens, side.offsets, self.val_segments * context, document_mask=True, side="val")

    def find_size_problems(self, tokens: int, *, context: int, plan: BatchPlan) -> Iterator[str]:
        rows = (tokens - 1) // self.count_row_tokens(context)
        if rows < plan.global_batch:
            yield describe_few_rows(rows, context=f"{self.segments} x {context}", plan=plan)

    def find_validation_problems(self, tokens: int, *, context: int) -> Iterator[str]:
        if tokens <= self.val_segments * context:
            yield (
                f"val_segments={self.val_segments}: so many windows of context={context} are longer than the val text, "
                f"which has {tokens} token{'s' * (tokens != 1)}; at most {max(0, tokens - 1) // context}, or use more "
                "text or a larger split.val_fraction"
            )

    def settings(self) -> Mapping[str, Any]:
        return {"segments": self.segments, "carry": self.carry}
