"""Encode documents and write them out as they come; no more than one chunk of text is held at a time."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from aptlab.data.sources import Source
from aptlab.data.store.pieces import PIECE, PieceSums
from aptlab.data.store.split import Division, check_sides
from aptlab.data.store.text_digest import TextDigest
from aptlab.data.tokenizers import Tokenizer
from aptlab.errors import DataError

SIDES = ("train", "val")
KINDS = ("tokens", "offsets", "sizes")
SUMS = "pieces.crc32"  # the checksums of all files, one behind the other
CHUNK_CHARACTERS = 4_000_000
CHUNK_DOCUMENTS = 4096
Progress = Callable[[str, int], None]
log = logging.getLogger("aptlab")


class NumberWriter:
    """A file of numbers that only grows; knows its size, sha256 and `sums` when closed."""

    def __init__(self, path: Path, dtype: str) -> None:
        self.path, self.dtype, self.size = path, dtype, 0
        self.sums = np.empty(0, dtype="<u4")  # of its pieces, once closed
        self._digest, self._pieces = hashlib.sha256(), PieceSums()
        self._file = path.open("xb")

    def write(self, numbers: np.ndarray) -> None:
        """Append `numbers` in the file's type."""
        data = np.ascontiguousarray(numbers, dtype=self.dtype).tobytes()
        self._file.write(data)
        self._digest.update(data)
        self._pieces.update(data)
        self.size += len(data)

    def close(self, sync: bool = True) -> dict[str, Any]:
        """Write everything through to the disk; returns size in bytes and sha256."""
        if sync:
            self._file.flush()
            os.fsync(self._file.fileno())
        self._file.close()
        self.sums = self._pieces.finish()
        return {"size": self.size, "sha256": self._digest.hexdigest()}


class SideWriter:
    """Writes one side of the split and counts what it wrote."""

    def __init__(self, folder: Path, side: str, tokenizer: Tokenizer, dtype: str) -> None:
        self._tokenizer = tokenizer
        self.streams = {
            f"{side}.{kind}": NumberWriter(folder / f"{side}.{kind}", number)
            for kind, number in zip(KINDS, (dtype, "<i8", "<i8"), strict=True)
        }
        self._tokens, self._offsets, self._sizes = self.streams.values()
        self.facts: dict[str, Any] = {"documents": 0, "tokens": 0, "bytes": 0, "largest_id": tokenizer.eos}
        self._offsets.write(np.zeros(1))

    def add(self, names: list[str], texts: list[str]) -> None:
        """Encode and append documents, the tokenizer's prefix before and eos after each.

        Raises DataError when an id is outside the vocabulary.
        """
        pieces = self._tokenizer.encode_documents(texts)
        vocab, eos = self._tokenizer.vocab_size, np.array([self._tokenizer.eos])
        for name, piece in zip(names, pieces):
            largest = int(piece.max(initial=0))
            if largest >= vocab:
                raise DataError(
                    f"document {name} has token {largest}, but the tokenizer has {vocab} tokens; "
                    "its file is damaged, choose another tokenizer"
                )
            self.facts["largest_id"] = max(self.facts["largest_id"], largest)
            self._tokens.write(piece)
            self._tokens.write(eos)
        ends = self.facts["tokens"] + np.cumsum([len(piece) + 1 for piece in pieces])
        sizes = [len(text.encode()) for text in texts]
        self._offsets.write(ends)
        self._sizes.write(np.array(sizes))
        self.facts["documents"] += len(texts)
        self.facts["tokens"] = int(ends[-1])
        self.facts["bytes"] += sum(sizes)


def write_sides(
    folder: Path, source: Source, tokenizer: Tokenizer, split: Division, *, progress: Progress | None
) -> dict[str, Any]:
    """Write both sides and their checksums into `folder`; returns dtype, counts per side, size and sha256 per file.

    `progress(unit, amount)` is told of documents as they are written. Raises DataError when a side is empty.
    """
    dtype = "<u2" if tokenizer.vocab_size <= 2**16 else "<u4"
    writers = {side: SideWriter(folder, side, tokenizer, dtype) for side in SIDES}
    validated = TextDigest()
    synced = False
    try:
        for names, texts in read_document_chunks(source):
            sides = tuple(zip(*map(split.divide, texts)))
            validated.add(piece for piece in sides[1] if piece)
            for writer, pieces in zip(writers.values(), sides, strict=True):
                chosen = [n for n, piece in enumerate(pieces) if piece]
                if chosen:
                    writer.add([names[n] for n in chosen], [pieces[n] for n in chosen])
            if progress:
                progress("documents", len(texts))
        check_sides({side: writer.facts["documents"] for side, writer in writers.items()}, split)
        writers["val"].facts["text"] = validated.name()
        synced = True
    finally:
        files = {
            name: stream.close(sync=synced) for writer in writers.values() for name, stream in writer.streams.items()
        }
    sums = NumberWriter(folder / SUMS, "<u4")
    for writer in writers.values():
        for stream in writer.streams.values():
            sums.write(stream.sums)
    facts = {"files": files, "sums": {"piece": PIECE, **sums.close()}}
    return {"dtype": dtype, **facts, "sides": {side: writer.facts for side, writer in writers.items()}}


def read_document_chunks(source: Source) -> Iterator[tuple[list[str], list[str]]]:
    """Names and texts of documents, in lists of bounded size."""
    names: list[str] = []
    texts: list[str] = []
    size = 0
    for name, text in source.documents(note=lambda line: log.warning("%s", line, extra={"component": source})):
        names.append(name)
        texts.append(text)
        size += len(text)
        if size >= CHUNK_CHARACTERS or len(texts) >= CHUNK_DOCUMENTS:
            yield names, texts
            names, texts, size = [], [], 0
    if texts:
        yield names, texts
