"""The same validation tokens, read with a short and with a long context.

Legend: S tokens of a segment (the longest window), W windows in a batch, L tokens of a window.

A model with context c is asked about multiples 1, 2, 4, 8 of it. Segments of S = 8c targets are chosen once; for
multiple k each is cut into S / (k c) windows that start afresh. So every multiple predicts exactly the same target
tokens, and a difference in loss comes from the context alone (a window's first tokens have little of it).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from aptlab.data.loader import Batch, to_tensors
from aptlab.data.rows.packed_table import find_inner_segments, gather_rows, shift_targets
from aptlab.data.store.cache import TokenSide
from aptlab.errors import ConfigError, DataError


class Windows:
    """Segments of `side` and their windows.

    Segments inside one document come first; only when these hold fewer than `tokens` targets, segments of the
    packed stream that touch none of them fill up. `meta` says how many there are of each. The choice is spread
    evenly over the text and depends on nothing random. `token_bytes` [vocab] are the UTF-8 bytes that each token
    stands for; without them those of a target are the average of its document.
    Raises DataError when not one segment fits, ConfigError for a bad multiple.
    """

    def __init__(
        self,
        side: TokenSide,
        *,
        context: int,
        multiples: Sequence[int] = (1, 2, 4, 8),
        tokens: int = 65_536,
        token_bytes: np.ndarray | None = None,
    ) -> None:
        if not multiples or min(multiples) < 1:
            raise ConfigError(f"length multiples {list(multiples)} must be whole numbers >= 1, such as [1, 2, 4, 8]")
        self.side, self.context, self.multiples = side, context, tuple(multiples)
        self.length = math.lcm(*self.multiples) * context
        if len(side.tokens) < self.length + 1:
            longest = (len(side.tokens) - 1) // context
            raise DataError(
                f"the validation text has {len(side.tokens)} tokens, too few for a length of {self.length} "
                f"({self.length // context} x context={context}); largest multiple: {longest}, or use more text"
            )
        rows = max(1, tokens // self.length)
        inside = _spread(find_inner_segments(side.offsets, self.length), rows)
        across = _spread(self._apart(inside), rows - len(inside))
        self.starts = np.sort(np.concatenate([inside, across]))
        self.meta: dict[str, Any] = {
            "segments": len(self.starts),
            "inside_documents": len(inside),
            "segment_length": self.length,
            "tokens": len(self.starts) * self.length,
            "bytes_per_token": self._estimate_bytes() if token_bytes is None else self._count_bytes(token_bytes),
        }

    def batches(self, multiple: int, *, tokens: int = 16_384) -> Iterator[Batch]:
        """Windows of `multiple` contexts: tokens and targets int64 [W,L], ids [W]; at most `tokens` tokens each.

        A window longer than `tokens` makes a batch of its own.
        """
        if multiple not in self.multiples:
            raise ConfigError(f"length multiple {multiple} was not prepared; there are {list(self.multiples)}")
        length = multiple * self.context
        starts = (self.starts[:, None] + np.arange(0, self.length, length)).reshape(-1)
        rows = max(1, tokens // length)
        for first in range(0, len(starts), rows):
            block = gather_rows(self.side.tokens, starts[first : first + rows], length + 1)
            yield to_tensors({**shift_targets(block), "ids": np.arange(first, first + len(block))})

    def _apart(self, inside: np.ndarray) -> np.ndarray:
        """Starts of stream segments that share no target with the segments `inside`."""
        starts = np.arange((len(self.side.tokens) - 1) // self.length) * self.length
        after = np.searchsorted(inside, starts, side="right")
        padded = np.concatenate([[-self.length], inside, [len(self.side.tokens)]])
        free = (starts >= padded[after] + self.length) & (starts + self.length <= padded[after + 1])
        return starts[free]

    def _count_bytes(self, token_bytes: np.ndarray) -> float:
        """UTF-8 bytes per target, of exactly the targets that there are."""
        total = sum(float(token_bytes[self.side.tokens[at + 1 : at + 1 + self.length]].sum()) for at in self.starts)
        return total / (len(self.starts) * self.length)

    def _estimate_bytes(self) -> float:
        """UTF-8 bytes per target, from the average of each document that a segment touches."""
        offsets = self.side.offsets
        rate = self.side.sizes / np.diff(offsets)
        total = 0.0
        for start in self.starts + 1:
            first, last = np.searchsorted(offsets, [start, start + self.length - 1], side="right") - 1
            edges = np.clip(offsets[first : last + 2], start, start + self.length)
            total += float((np.diff(edges) * rate[first : last + 1]).sum())
        return total / (len(self.starts) * self.length)


def _spread(values: np.ndarray, count: int) -> np.ndarray:
    """`count` of the values, evenly spaced; all of them when there are no more."""
    count = min(max(count, 0), len(values))
    return values[np.arange(count) * len(values) // max(count, 1)]
