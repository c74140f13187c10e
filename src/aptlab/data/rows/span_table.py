"""Rows of span corruption. Legend: B rows, R tokens of text, K spans, N positions of the result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from aptlab.data.rows.base import RowTable
from aptlab.data.rows.order import permute_indices
from aptlab.data.rows.packed_table import gather_rows
from aptlab.data.rows.span_lengths import SpanLengths

if TYPE_CHECKING:
    from aptlab.data.rows.base import Arrays


class SpanTable(RowTable):
    """Row i: tokens [i · raw, (i + 1) · raw) of the stream with spans taken out; see `SpanCorruption`.

    tokens [B, context] int64, decoder_tokens and targets [B, target_context]; no row is padded.
    """

    def __init__(self, stream: Any, lengths: SpanLengths, *, first_sentinel: int, eos: int, seed: int) -> None:
        self.stream, self.lengths = stream, lengths
        self.first_sentinel, self.eos, self.seed = first_sentinel, eos, seed
        self.context, self.target_context = lengths.source, lengths.target

    def __len__(self) -> int:
        return len(self.stream) // self.lengths.raw

    def rows(self, ids: np.ndarray) -> Arrays:
        raw_BR = gather_rows(self.stream, np.asarray(ids) * self.lengths.raw, self.lengths.raw).astype(np.int64)
        kept_BK, noise_BK = self._divide_rows(ids)
        source = np.empty((len(ids), self.context), dtype=np.int64)
        target = np.empty((len(ids), self.target_context), dtype=np.int64)
        for row in range(len(ids)):
            source[row], target[row] = self._corrupt_row(raw_BR[row], kept_BK[row], noise_BK[row])
        begun = np.full((len(ids), 1), self.eos, dtype=np.int64)
        return {
            "tokens": source,
            "decoder_tokens": np.concatenate([begun, target[:, :-1]], axis=1),
            "targets": target,
            "ids": np.asarray(ids, dtype=np.int64),
        }

    def _divide_rows(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Lengths of the pieces that are kept and of the spans, each [B, K]."""
        raw, noise, spans, *_ = self.lengths
        each = [
            (
                divide_uniformly(raw - noise, spans, seed=self.seed, number=2 * int(row)),
                divide_uniformly(noise, spans, seed=self.seed, number=2 * int(row) + 1),
            )
            for row in ids
        ]
        return np.array([kept for kept, _ in each]), np.array([noisy for _, noisy in each])

    def _corrupt_row(self, raw_R: np.ndarray, kept_K: np.ndarray, noise_K: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Source and target of one piece of text."""
        lengths_2K = np.stack([kept_K, noise_K], axis=1).reshape(-1)
        pieces = np.split(raw_R, np.cumsum(lengths_2K)[:-1])
        marks = self.first_sentinel + np.arange(self.lengths.spans)
        source = [part for kept, mark in zip(pieces[::2], marks, strict=True) for part in (kept, [mark])]
        target = [part for mark, span in zip(marks, pieces[1::2], strict=True) for part in ([mark], span)]
        return np.concatenate([*source, [self.eos]]), np.concatenate([*target, [self.eos]])


def divide_uniformly(total: int, parts: int, *, seed: int, number: int) -> np.ndarray:
    """`total` as a sum of `parts` numbers of at least 1, each way to do so equally likely; int64 [parts].

    A pure function of (seed, number): the cuts are the first of a permutation of the places between the tokens.
    """
    if parts == 1:
        return np.array([total])
    cuts = permute_indices(np.arange(parts - 1), count=total - 1, seed=seed, epoch=number)
    return np.diff(np.concatenate([[0], np.sort(cuts) + 1, [total]]))
