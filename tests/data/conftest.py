"""Small corpora; no test reads or writes the user's cache folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import pytest

from aptlab.data.sources import Document, Note, Source, fingerprint_parts


@dataclass(frozen=True)
class Texts(Source):
    """Documents given as a list."""

    name: ClassVar[str] = "texts"
    texts: tuple[str, ...]

    def documents(self, note: Note | None = None) -> Iterator[Document]:
        yield from ((f"text-{number}", text) for number, text in enumerate(self.texts))

    def fingerprint(self) -> str:
        return fingerprint_parts((name, text.encode()) for name, text in self.documents())


@pytest.fixture(scope="session")
def make_texts():
    """Documents of different length with some structure, so that BPE finds merges: (count, words) -> source."""

    def make(count: int = 60, words: int = 40) -> Texts:
        bodies = (" ".join(f"word{(n * k) % 17}" for k in range(words + n)) for n in range(count))
        return Texts(tuple(f"Document {n}: {body}" for n, body in enumerate(bodies)))

    return make


@pytest.fixture
def texts(make_texts) -> Texts:
    return make_texts()


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("APTLAB_CACHE", str(tmp_path / "cache"))
