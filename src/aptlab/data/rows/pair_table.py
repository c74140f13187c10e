"""Rows of a source and a target. Legend: B rows, S tokens of a source, T tokens of a target, N pairs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from aptlab.data.rows.base import RowTable
from aptlab.objectives import IGNORE

if TYPE_CHECKING:
    from aptlab.data.rows.base import Arrays


@dataclass(frozen=True)
class FlatRows:
    """Rows of different lengths behind each other: row i is values[offsets[i] : offsets[i + 1]]."""

    values: np.ndarray
    offsets: np.ndarray

    @classmethod
    def join(cls, rows: Iterable[np.ndarray]) -> FlatRows:
        """The rows in one int32 array."""
        parts = [np.asarray(row, dtype=np.int32) for row in rows]
        offsets = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)
        return cls(np.concatenate(parts) if parts else np.zeros(0, dtype=np.int32), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        return self.values[self.offsets[row] : self.offsets[row + 1]]


class PairTable(RowTable):
    """Pairs as an encoder-decoder reads them, padded to `context` and `target_context` tokens:

        tokens          source, eos, padding     segments  1 for tokens, 0 for padding, [B, S]
        decoder_tokens  eos, target, padding     targets   target, eos, IGNORE, [B, T]

    So eos both begins and ends a target, as in Marian and fairseq; T5 begins with its padding token instead.
    """

    def __init__(self, sources: FlatRows, targets: FlatRows, *, eos: int, context: int, target_context: int) -> None:
        self.sources, self.target_rows, self.eos = sources, targets, eos
        self.context, self.target_context = context, target_context

    def __len__(self) -> int:
        return len(self.sources)

    def rows(self, ids: np.ndarray) -> Arrays:
        size, width = len(ids), self.target_context
        arrays = {name: np.zeros((size, self.context), dtype=np.int64) for name in ("tokens", "segments")}
        arrays |= {
            "decoder_tokens": np.zeros((size, width), dtype=np.int64),
            "targets": np.full((size, width), IGNORE, dtype=np.int64),
        }
        for row, number in enumerate(ids):
            source, target = self.sources[number], self.target_rows[number]
            arrays["tokens"][row, : len(source)], arrays["tokens"][row, len(source)] = source, self.eos
            arrays["segments"][row, : len(source) + 1] = 1
            arrays["decoder_tokens"][row, 0], arrays["decoder_tokens"][row, 1 : len(target) + 1] = self.eos, target
            arrays["targets"][row, : len(target)], arrays["targets"][row, len(target)] = target, self.eos
        return {**arrays, "ids": np.asarray(ids, dtype=np.int64)}
