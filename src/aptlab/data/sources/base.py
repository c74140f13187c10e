"""What a source is: documents `(name, text)` in a fixed order, and a fingerprint of them."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import ClassVar

Note = Callable[[str], None]
Document = tuple[str, str]


class Source(ABC):
    """A finite stream of documents that can be read more than once.

    `name` is a short word for tables. Two sources with the same `fingerprint()` yield the same documents.
    """

    name: ClassVar[str]

    @abstractmethod
    def documents(self, note: Note | None = None) -> Iterator[Document]:
        """Yield `(name, text)`, no text empty; `note` gets one line about whatever was left out."""

    @abstractmethod
    def fingerprint(self) -> str:
        """64 hex digits that change when a document changes, appears or goes."""

    def find_problems(self) -> Iterable[str]:
        """What a look at files and packages shows to be missing or wrong, before anything is read; no torch."""
        return ()

    def find_training_problems(self, context: int) -> Iterable[str]:
        """What is wrong for training with rows of `context` tokens, as far as a look shows it."""
        del context
        return ()

    def count_bytes(self) -> int | None:
        """Bytes that the text has at most, as far as a look shows it; None: only reading tells."""
        return None


def fingerprint_parts(parts: Iterable[tuple[str, bytes]]) -> str:
    """sha256 over names and content hashes, in the order given."""
    total = hashlib.sha256()
    for name, content in parts:
        total.update(f"{name}\0{hashlib.sha256(content).hexdigest()}\n".encode())
    return total.hexdigest()
