"""Checksums of token files piece by piece, and files that are compared with them as they are read.

A piece is PIECE bytes, the last one of a file less; its checksum is the CRC-32 of ISO/IEC/IEEE 8802-3, which finds
every error of up to 32 bits in a row, and misses one in 2^32 of all others. It is there against damage, not against
somebody who writes the file and its checksums: who can do that decides what is trained on in any case.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from aptlab.errors import DataError

PIECE = 1 << 14  # bytes: a row reads little more than itself, and 1 GB has 256 KB of checksums
MARK = "damaged.txt"  # beside the files, once one of them was found damaged while it was read


class PieceSums:
    """The checksums of a stream of bytes that comes in parts of any size."""

    def __init__(self) -> None:
        self._sums: list[int] = []
        self._open = self._filled = 0

    def update(self, data: bytes) -> None:
        """Take the next bytes of the stream."""
        view = memoryview(data)
        while view:
            part = view[: PIECE - self._filled]
            self._open = zlib.crc32(part, self._open)
            self._filled += len(part)
            view = view[len(part) :]
            if self._filled == PIECE:
                self._close_piece()

    def finish(self) -> np.ndarray:
        """The checksums of all that was taken, uint32 [pieces]."""
        if self._filled:
            self._close_piece()
        return np.array(self._sums, dtype="<u4")

    def _close_piece(self) -> None:
        self._sums.append(self._open)
        self._open = self._filled = 0


def count_pieces(size: int) -> int:
    """Pieces of a file of so many bytes."""
    return -(-size // PIECE)


def find_damaged_piece(data: memoryview, sums: np.ndarray, pieces: Iterable[int]) -> int | None:
    """The first of the pieces that does not have its checksum, None where all have."""
    for piece in pieces:
        if zlib.crc32(data[piece * PIECE : (piece + 1) * PIECE]) != sums[piece]:
            return piece
    return None


class CheckedTokens:
    """The tokens [N] of a file, mapped into memory: a piece is compared with its checksum before it is given out.

    Indexed as an array is; what comes back is a numpy array. A piece is compared once, and again after the file's time
    of change is another. Raises DataError that names the file and the place, and marks the folder, so that the next
    opening builds the cache anew; also where the file has another size than when it was opened.
    """

    def __init__(self, path: Path, dtype: str, sums: np.ndarray) -> None:
        self.path, self._sums = path, sums
        self._file = path.open("rb")
        self._tokens = np.asarray(np.memmap(self._file, dtype=dtype, mode="r"))
        self._data = memoryview(self._tokens).cast("B")
        self._shift = (PIECE // self._tokens.itemsize).bit_length() - 1  # both are powers of two
        self._seen = self._read_stat()
        self._whole = np.zeros(len(sums), dtype=bool)
        self._left = len(sums)

    def __reduce__(self) -> tuple[Any, ...]:
        return CheckedTokens, (self.path, self._tokens.dtype.str, self._sums)

    @property
    def dtype(self) -> np.dtype:
        """Of one token."""
        return self._tokens.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """(N,)"""
        return self._tokens.shape

    @property
    def unread(self) -> int:
        """Pieces that have not been compared yet."""
        return self._left

    def __len__(self) -> int:
        return len(self._tokens)

    def __getitem__(self, index: Any) -> np.ndarray:
        self._notice_change()
        if self._left:
            self._check_index(index)
        return self._tokens[index]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        self._notice_change()
        self._check_pieces(np.flatnonzero(~self._whole))
        return np.array(self._tokens, dtype=dtype, copy=copy)

    def find_damage(self) -> str | None:
        """Compare every piece that has not been; what is damaged, in words, None where nothing is."""
        self._notice_change()
        return self._compare(np.flatnonzero(~self._whole))

    def _check_index(self, index: Any) -> None:
        """Compare the pieces that an index touches."""
        if isinstance(index, slice):
            touched = range(len(self))[index]
            if len(touched):
                first, last = sorted((touched[0] >> self._shift, touched[-1] >> self._shift))
                self._check_pieces(first + np.flatnonzero(~self._whole[first : last + 1]))
            return
        numbers = np.asarray(index)
        if numbers.dtype.kind not in "iu":  # a mask, or what numpy will refuse
            self._check_pieces(np.flatnonzero(~self._whole))
            return
        if numbers.size and numbers.min() < 0:
            numbers = np.where(numbers < 0, numbers + len(self), numbers)
        pieces = numbers >> self._shift
        self._check_pieces(np.unique(pieces[~self._whole[pieces]]))

    def _check_pieces(self, pieces: np.ndarray) -> None:
        damage = self._compare(pieces)
        if damage is not None:
            raise self._mark(damage)

    def _compare(self, pieces: np.ndarray) -> str | None:
        """Compare these pieces and note that they are whole, unless one of them is not."""
        damaged = find_damaged_piece(self._data, self._sums, pieces.tolist())
        if damaged is not None:
            return self._describe(f"its bytes from {damaged * PIECE:,} on are not what was written")
        self._whole[pieces] = True
        self._left = int(len(self._whole) - np.count_nonzero(self._whole))
        return None

    def _notice_change(self) -> None:
        """Compare everything again after the file was touched; another size would end the process without a word."""
        now = self._read_stat()
        if now == self._seen:
            return
        if now[0] != self._seen[0]:
            raise self._mark(self._describe(f"it had {self._seen[0]:,} bytes when it was opened and has {now[0]:,}"))
        self._seen = now
        self._whole[:] = False
        self._left = len(self._whole)

    def _read_stat(self) -> tuple[int, int]:
        stat = os.fstat(self._file.fileno())
        return stat.st_size, stat.st_mtime_ns

    def _describe(self, what: str) -> str:
        return f"the token cache is damaged: {self.path}: {what}"

    def _mark(self, damage: str) -> DataError:
        """The error that ends the run, once the next opening knows that it has to build the cache anew."""
        with contextlib.suppress(OSError):
            (self.path.parent / MARK).write_text(damage + "\n", encoding="utf-8")
            return DataError(f"{damage}; start again, and it is built anew")
        return DataError(f"{damage}; delete {self.path.parent} and start again, and it is built anew")
