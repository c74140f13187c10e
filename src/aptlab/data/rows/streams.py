"""Documents dealt out to streams, and rows that read them in order.

Legend: B rows per micro-batch, W ranks, R = W B streams, L tokens of a row, P pieces (documents, or parts of one), N
tokens.

A stream is a row of all micro-batches: it owns some documents for good and reads them whole, one after the other, in
an order that is drawn anew for each of its passes. So the token at a place of a stream is a function of (seed, place),
and no pass over the documents is replayed to go on at a later step. Streams are as long as each other up to a
document, so they finish a pass at different steps.
"""

from __future__ import annotations

import heapq
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from aptlab.data.rows.base import BatchPlan, Rows, describe_few_rows
from aptlab.data.rows.epochs import describe_plan
from aptlab.data.rows.order import permute_indices
from aptlab.data.rows.packed_table import shift_targets
from aptlab.errors import ConfigError

if TYPE_CHECKING:
    from aptlab.data.rows.base import Arrays
    from aptlab.data.store.cache import TokenSide

SMALL = 64  # pieces below 1/64 of a stream are dealt out all at once
DEAL = (1 << 63) - 1  # the "epoch" whose order decides which stream owns which documents
NAMES = (1 << 31) - 1  # of documents: 1 to this; two in a row never have the same
log = logging.getLogger("aptlab")


class Pieces(NamedTuple):
    """Where pieces begin in the text, and their tokens; int64 [P] each."""

    starts: np.ndarray
    sizes: np.ndarray


def cut_pieces(offsets: np.ndarray, most: int) -> Pieces:
    """The documents between offsets [D + 1]; those of more than `most` tokens in parts of nearly equal size."""
    begins, sizes = np.asarray(offsets[:-1], dtype=np.int64), np.diff(np.asarray(offsets, dtype=np.int64))
    begins, sizes = begins[sizes > 0], sizes[sizes > 0]
    parts = -(-sizes // most)
    document = np.repeat(np.arange(len(sizes)), parts)
    number = np.arange(parts.sum()) - np.repeat(np.cumsum(parts) - parts, parts)
    first, end = (sizes[document] * at // parts[document] for at in (number, number + 1))
    return Pieces(begins[document] + first, end - first)


def deal_pieces(sizes: np.ndarray, streams: int, *, seed: int) -> np.ndarray:
    """The stream that owns each piece, int64 [P]; none may be longer than 1/streams of all.

    Large ones go to the shortest stream, the largest first (Graham 1969); the many small ones, in an order by the seed,
    fill what is missing in each stream. So two streams differ by less than the largest piece.
    """
    order = permute_indices(np.arange(len(sizes)), count=len(sizes), seed=seed, epoch=DEAL)
    share = int(sizes.sum()) / streams
    is_large = sizes[order] * SMALL > share
    large = order[is_large]
    owners = np.zeros(len(sizes), dtype=np.int64)
    filled = [(0, stream) for stream in range(streams)]
    for piece in large[np.argsort(-sizes[large], kind="stable")].tolist():
        tokens, stream = filled[0]
        owners[piece] = stream
        heapq.heapreplace(filled, (tokens + int(sizes[piece]), stream))
    small = order[~is_large]
    if len(small):
        missing = np.zeros(streams)
        for tokens, stream in filled:
            missing[stream] = max(0.0, share - tokens)
        ends = np.cumsum(missing) * (sizes[small].sum() / missing.sum())
        middles = np.cumsum(sizes[small]) - sizes[small] / 2
        owners[small] = np.minimum(np.searchsorted(ends, middles, side="right"), streams - 1)
    return owners


class Stream:
    """The pieces of one row by their place: `seed` and `number` decide the order of each pass."""

    def __init__(self, pieces: Pieces, mine: np.ndarray, *, seed: int, number: int, streams: int) -> None:
        self.mine, self.starts, self.sizes = mine, pieces.starts[mine], pieces.sizes[mine]
        self.seed, self.number, self.streams, self.all = seed, number, streams, len(pieces.sizes)
        self.tokens = int(self.sizes.sum())
        self._orders: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def locate(self, first: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Places in the text, positions in the piece and names of the pieces of tokens [first, first + count)."""
        places = first + np.arange(count, dtype=np.int64)
        passes, within = np.divmod(places, self.tokens)
        found = np.empty((3, count), dtype=np.int64)
        for number in range(int(passes[0]), int(passes[-1]) + 1):
            here = passes == number
            order, ends = self._order(number)
            at = np.searchsorted(ends, within[here], side="right")
            piece = order[at]
            position = within[here] - (ends[at] - self.sizes[piece])
            name = 1 + (number * self.all + self.mine[piece]) % NAMES
            found[:, here] = self.starts[piece] + position, position, name
        return found[0], found[1], found[2]

    def _order(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Own pieces in the order of a pass, and where each ends in it; the last two are kept."""
        if number not in self._orders:
            count = len(self.sizes)
            epoch = number * self.streams + self.number
            order = permute_indices(np.arange(count), count=count, seed=self.seed, epoch=epoch)
            kept = {old: value for old, value in self._orders.items() if old == number - 1}
            self._orders = {**kept, number: (order, np.cumsum(self.sizes[order]))}
        return self._orders[number]


class StreamRows(Rows):
    """Micro-batch n has tokens [n L, (n + 1) L] of each stream: L inputs, and the same shifted by one as targets.

    Rank r of W has streams r B to (r + 1) B - 1. An epoch is as many rows as the text has tokens for. A document longer
    than a stream's share of the text is cut, and each part is a document of its own. `ids` are the places in the text
    at which rows begin. Raises ConfigError where an epoch has fewer rows than there are streams.
    """

    def __init__(
        self,
        side: TokenSide,
        plan: BatchPlan,
        *,
        context: int,
        segments: int,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.side, self.plan, self.context, self.length = side, plan, context, context * segments
        self._settings = dict(settings or {})
        streams = plan.global_batch
        if len(self) < streams:
            raise ConfigError(describe_few_rows(len(self), context=f"{segments} x {context}", plan=plan))
        offsets = np.asarray(side.offsets)
        pieces = cut_pieces(offsets, int(offsets[-1] - offsets[0]) // streams)
        if (more := len(pieces.sizes) - int((np.diff(offsets) > 0).sum())) and plan.rank == 0:
            log.info(
                "documents longer than 1/%d of the text are cut, so that %d rows have something to read: %d parts more",
                *(streams, streams, more),
            )
        owners = deal_pieces(pieces.sizes, streams, seed=plan.seed)
        first = plan.rank * plan.batch
        self.streams = [
            Stream(pieces, np.flatnonzero(owners == number), seed=plan.seed, number=number, streams=streams)
            for number in range(first, first + plan.batch)
        ]

    def __len__(self) -> int:
        return (len(self.side.tokens) - 1) // self.length

    @property
    def batches_per_epoch(self) -> int:
        return len(self) // self.plan.global_batch

    def batch(self, number: int) -> Arrays:
        """Also positions and segments [B, L]: positions in the document and its name, which it keeps over batches."""
        located = [stream.locate(number * self.length, self.length + 1) for stream in self.streams]
        places, positions, names = (np.stack(parts) for parts in zip(*located, strict=True))
        return {
            **shift_targets(self.side.tokens[places]),
            "ids": places[:, 0].copy(),
            "positions": positions[:, :-1].copy(),
            "segments": names[:, :-1].copy(),
        }

    def state(self) -> dict[str, Any]:
        return describe_plan(self.plan, self.context) | self._settings

    def convert_number(self, number: int, *, global_batch: int) -> int:
        """After as many tokens; the streams are others, so some documents come again and some later."""
        return number * global_batch // self.plan.global_batch
