"""Metrics of a row's tokens and bytes. Legend: B rows, V token ids."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from aptlab.curriculum.metrics.base import DifficultyMetric
from aptlab.errors import ConfigError

if TYPE_CHECKING:
    from aptlab.data.rows.numbered import NumberedRows, RowContents


@dataclass(frozen=True, kw_only=True)
class TokenCount(DifficultyMetric):
    """Tokens of the sample that a row is.

    A row of packed documents has the mean length of the documents that its tokens are of, for all such rows are equally
    long themselves.
    """

    def measure(self, contents: RowContents, fitted: Any) -> np.ndarray:
        """Raises ConfigError for rows that are not made of tokens."""
        del fitted
        if contents.lengths is None:
            raise ConfigError(
                "TokenCount counts tokens, and these rows have none; take CompressionRatio, UnigramNLL or ModelLoss, "
                "and in curriculum=campus take it out with metrics.<its name>=null"
            )
        return np.asarray(contents.lengths, dtype=np.float64)


@dataclass(frozen=True, kw_only=True)
class CompressionRatio(DifficultyMetric):
    """Bytes of a row after zlib over bytes before: repetitive text is near 0, text without any pattern near 1.

    Of a text its UTF-8 bytes, of other rows the bytes of their numbers. A row without bytes is 0.

    level  of zlib, 1 (fast) to 9 (small)
    """

    level: int = 6

    def __post_init__(self) -> None:
        if self.level not in range(1, 10):
            raise ConfigError(f"level={self.level} must be in 1 .. 9; 6 is usual")

    def measure(self, contents: RowContents, fitted: Any) -> np.ndarray:
        del fitted
        texts = contents.list_texts()
        if texts is None:
            payloads = [np.ascontiguousarray(row, dtype="<i4").tobytes() for row in contents.tokens]
        else:
            payloads = [text.encode("utf-8", "surrogatepass") for text in texts]
        return np.array([len(zlib.compress(data, self.level)) / len(data) if data else 0.0 for data in payloads])


@dataclass(frozen=True, kw_only=True)
class UnigramNLL(DifficultyMetric):
    """Mean surprise of a row's tokens by their frequency: -1/T sum_i ln p(w_i),  p(w) = (c(w) + 1) / (N + V + 1).

    The "sentence rarity" of Platanios et al. (2019, arXiv:1903.09848, section 3.2), in nats, per token rather than
    summed, so that length does not count twice; smoothed by one, so that validation rows may hold new ids. c counts the
    ids of all N training tokens, V are the ids up to the largest one there. A row without tokens is 0.
    """

    def fit(self, rows: NumberedRows) -> np.ndarray:
        """ln p of each id, float64 [V + 1], the last for ids that training rows do not have."""
        counts = np.zeros(0, dtype=np.int64)
        for contents in rows.walk_contents():
            found = np.bincount(np.concatenate([np.asarray(row).reshape(-1) for row in contents.tokens]))
            longer, shorter = (counts, found) if len(counts) > len(found) else (found, counts)
            counts = longer.astype(np.int64)
            counts[: len(shorter)] += shorter
        counts = np.append(counts, 0) + 1
        return np.log(counts / counts.sum())

    def measure(self, contents: RowContents, fitted: Any) -> np.ndarray:
        last = len(fitted) - 1
        rows = (np.minimum(np.asarray(row).reshape(-1), last) for row in contents.tokens)
        return np.array([-fitted[row].mean() if len(row) else 0.0 for row in rows])
