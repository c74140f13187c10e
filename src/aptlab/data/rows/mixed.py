"""Rows of a long context, of which a share are short documents: training for two windows at once.

LongRoPE2 (arXiv:2502.20082, section 3.3) trains on short documents with the original rotation and on long text with
the rescaled one, so that short texts stay as good as they were. Three kinds of rows, L the trained length:

short   packed documents, each cut into pieces of at most L tokens; a piece sees itself alone
packed  whole documents behind each other; each sees itself alone, so those up to L count as short ones
long    one segment of the long context, inside one document where there are such documents

Positions restart with every piece or document, so a rule that chooses by length (rope=longrope, longrope2) takes its
short factors for pieces up to L and its long ones for the rest; the model needs no word about it.
No numpy is loaded until rows are made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from aptlab.data.rows.base import BatchPlan, RowKind, Rows, RowTable, describe_short_side
from aptlab.data.rows.shares import CYCLE
from aptlab.errors import ConfigError
from aptlab.limits import Fraction, PositiveInt, validate_limits

if TYPE_CHECKING:
    from aptlab.data.store.cache import TokenSide


@dataclass(frozen=True, kw_only=True)
class Mixed(RowKind):
    """Shares of the rows; the rest is long. The paper's tokens: 3 of 10 up to L, 3 to 100k, 4 to 200k (section 4.1).

    Validation rows are packed ones of the long context, without document masks.

    original_len  L in tokens, less than the context; None cannot be trained on
    short         rows of packed documents, cut to pieces of at most L tokens
    packed        rows of whole documents that do not see each other
    """

    covers: ClassVar[bool] = False

    original_len: PositiveInt | None = None
    short: Fraction = 0.3
    packed: Fraction = 0.3

    def __post_init__(self) -> None:
        validate_limits(self)
        if self.short + self.packed > 1:
            raise ConfigError(
                f"short={self.short} and packed={self.packed} are more than all rows; their sum is at most 1"
            )

    def counts(self) -> tuple[int, int, int]:
        """Rows of each kind in CYCLE rows."""
        short, both = round(self.short * CYCLE), round((self.short + self.packed) * CYCLE)
        return short, both - short, CYCLE - both

    def make_rows(self, side: TokenSide, *, context: int, plan: BatchPlan) -> Rows:
        """Also raises ConfigError where `original_len` is missing or not shorter than the context."""
        from aptlab.data.rows.mixed_table import MixedRows, MixedTable

        for problem in self.find_training_problems(context):
            raise ConfigError(problem)
        assert self.original_len is not None  # or there was a problem
        table = MixedTable(side.tokens, side.offsets, context, self.original_len)
        return MixedRows(table, plan, counts=self.counts(), settings=self.settings())

    def find_training_problems(self, context: int) -> Iterator[str]:
        if self.original_len is None:
            yield "original_len=null, and the rope has none; set it to the length that the weights were trained with"
        elif self.original_len >= context:
            yield (
                f"original_len={self.original_len} must be shorter than context={context}, the length to "
                "reach; set rope.original_len to the trained length and context to the new one"
            )

    def find_size_problems(self, tokens: int, *, context: int, plan: BatchPlan) -> Iterator[str]:
        del plan
        if tokens <= context:
            yield describe_short_side(tokens, context=context, side="train")

    def make_validation_table(self, side: TokenSide, *, context: int) -> RowTable:
        from aptlab.data.rows.packed_table import PackedTable

        return PackedTable(side.tokens, side.offsets, context, side="val")

    def settings(self) -> Mapping[str, Any]:
        return {"original_len": self.original_len, "shares": list(self.counts())}
