"""What rows are to the data module: a rule that a config names, a table of rows, and micro-batches by number.

Legend: B rows per micro-batch and device, T tokens per row (the context), W ranks.

    RowKind    the rule, such as `Packed(document_mask=True)`: makes the other two from a stream of tokens
    RowTable   rows by id, in no order
    Rows       micro-batches by number: the order, and the share of this rank

A micro-batch is a pure function of its number, so that resuming is starting at a number. No numpy is loaded here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from aptlab.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

    from aptlab.data.store.cache import TokenSide
    from aptlab.data.tokenizers import Tokenizer

    Arrays = dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """How rows are shared out: `batch` rows for each of `world` ranks, of which this is number `rank`, by `seed`."""

    batch: int
    seed: int = 0
    rank: int = 0
    world: int = 1

    @property
    def global_batch(self) -> int:
        """Rows of one micro-batch of all ranks together."""
        return self.batch * self.world


@dataclass(frozen=True, kw_only=True)
class SegmentPlan:
    """How a network that remembers reads rows: `window` tokens at a time, states going from window to window.

    carry  states also go from a micro-batch to the next, which goes on with the same text in the same rows
    """

    window: int
    carry: bool = True


class RowTable(ABC):
    """Rows of `context` tokens by id."""

    context: int

    @abstractmethod
    def __len__(self) -> int:
        """Rows there are; ids are below it."""

    @abstractmethod
    def rows(self, ids: np.ndarray) -> Arrays:
        """The rows `ids` [B]: tokens and targets int64 [B, T], ids [B]; positions and segments [B, T] where needed."""


class Rows(ABC):
    """Training rows as micro-batches without end, for one rank of a `BatchPlan`."""

    plan: BatchPlan

    @abstractmethod
    def __len__(self) -> int:
        """Rows of one epoch, on all ranks together."""

    @property
    @abstractmethod
    def batches_per_epoch(self) -> int:
        """Micro-batches of each rank in one pass, at least 1."""

    @abstractmethod
    def batch(self, number: int) -> Arrays:
        """Micro-batch `number` (from 0) of this rank: tokens and targets int64 [B, T], ids [B], and what else the
        kind of rows has. Equal for equal numbers, whatever was asked before.
        """

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """What makes a number meaningful, as plain values: seed, context, global_batch, and the kind's settings."""

    @abstractmethod
    def convert_number(self, number: int, *, global_batch: int) -> int:
        """The micro-batch at which these rows go on after `number` micro-batches of `global_batch` rows each."""


class RowKind(ABC):
    """How rows are made of a token stream, as a config names it; a frozen dataclass.

    covers  promises that an epoch shows every row once, but a remainder that is no full batch
    """

    covers: ClassVar[bool] = True

    def for_tokenizer(self, tokenizer: Tokenizer) -> RowKind:
        """The kind that makes rows of this tokenizer's ids."""
        del tokenizer
        return self

    @property
    def extra_tokens(self) -> int:
        """Ids behind those of the tokenizer that rows hold, as sentinels."""
        return 0

    def count_target_tokens(self, context: int) -> int:
        """Tokens of the target of each row, where rows are pairs of a source of `context` tokens and a target; else 0.

        Such rows have "decoder_tokens" beside "tokens", the source, and "targets", both [B, T].
        """
        del context
        return 0

    @abstractmethod
    def make_rows(self, side: TokenSide, *, context: int, plan: BatchPlan) -> Rows:
        """Training rows over one side of the text. Raises ConfigError and DataError when there are too few."""

    @abstractmethod
    def make_validation_table(self, side: TokenSide, *, context: int) -> RowTable:
        """The rows that are validated on. Raises DataError when there is none."""

    def make_training_table(self, side: TokenSide, *, context: int) -> RowTable:
        """The rows that are trained on by number, row i cut at token i * context: for orders other than its own.

        Raises ConfigError where training rows are of several kinds, or none fits.
        """
        del side, context
        raise ConfigError(
            f"{type(self).__name__} rows have an order of their own, which keeps their shares; use data=packed, or "
            "curriculum=none"
        )

    @abstractmethod
    def settings(self) -> Mapping[str, Any]:
        """Plain values that decide which rows a number means; a checkpoint with others is not resumed."""

    def count_row_tokens(self, context: int) -> int:
        """Tokens of a training row."""
        return context

    def plan_segments(self, context: int) -> SegmentPlan | None:
        """How rows are read that are parts of longer texts; None: each is one pass, and stands alone."""
        del context
        return None

    def find_training_problems(self, context: int) -> Iterable[str]:
        """What is wrong for training with rows of `context` tokens, before any text is read; no torch."""
        del context
        return ()

    def find_size_problems(self, tokens: int, *, context: int, plan: BatchPlan) -> Iterable[str]:
        """What is wrong for training on a text of `tokens` tokens, before any is encoded; no torch."""
        del tokens, context, plan
        return ()

    def find_validation_problems(self, tokens: int, *, context: int) -> Iterable[str]:
        """The same for a text to validate on."""
        if tokens <= context:
            yield describe_short_side(tokens, context=context, side="val")


def describe_short_side(tokens: int, *, context: int, side: str) -> str:
    """The message where a side of the text does not fill one row."""
    more = " or a larger split.val_fraction" if side == "val" else ""
    return (
        f"context={context} is longer than the {side} text, which has {tokens} token{'s' * (tokens != 1)}; largest "
        f"context: {max(0, tokens - 1)}, or use more text{more}"
    )


def describe_few_rows(rows: int, *, context: int | str, plan: BatchPlan) -> str:
    """The message where an epoch does not fill one micro-batch of all ranks."""
    needed, have = (f"{count} row{'s' * (count != 1)}" for count in (plan.global_batch, rows))
    return (
        f"batch={plan.batch} on {plan.world} device{'s' * (plan.world > 1)} needs {needed}, but an epoch has {have} of "
        f"context={context}; largest batch: {rows // plan.world}"
    )
